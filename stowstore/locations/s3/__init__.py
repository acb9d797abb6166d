"""Amazon S3 and whatever speaks its protocol: Ceph, MinIO, SeaweedFS, R2, ...

Who does what: obstore carries plain reads, writes and deletes at a fifth of the cost of anything else; signed requests
of our own over minio's parts do what obstore cannot (list by text, upload in parts that leave nothing behind, stop at
a deadline, work in a forked child, show the server's headers); the minio client administers buckets.
"""

from __future__ import annotations

from stowstore.locations.base import Dial, Kind, Location, Option

__all__ = ["KIND"]


def _dial(dial: Dial) -> Location:
    # The client libraries are heavy: importing stowstore must not load them.
    from stowstore.locations.s3.location import S3Location
    from stowstore.locations.s3.settings import Settings

    return S3Location(Settings.of(dial), dial.options)


_OPTIONS = {
    "endpoint": Option(
        help="host[:port] or URL of the service; default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or Amazon's"
    ),
    "region": Option(help="region; default: AWS_REGION, AWS_DEFAULT_REGION, or us-east-1"),
    "auth_type": Option(
        help="accesskey (keys given here) or iam (environment, ~/.aws/credentials, instance roles); "
        "default: accesskey when keys are given, else iam",
        choices=("accesskey", "iam"),
    ),
    "access_key_id": Option(help="access key", aliases=("access_key",)),
    "secret_key": Option(help="secret of the access key", secret=True, aliases=("secret_access_key",)),
    "token": Option(help="session token of temporary keys", secret=True, aliases=("session_token",)),
    "anonymous": Option(help="true: send requests without signature, for public buckets"),
    "disable_ssl": Option(help="true: plain HTTP where the endpoint names no scheme"),
    "path_style": Option(help="bucket in the path (true) or in the host name; default: true with an endpoint"),
    "insecure_tls": Option(help="true: accept any certificate; for tests only"),
    "ca_bundle": Option(help="file with the certificates to trust beside the usual ones (PEM)"),
    "timeout": Option(help="seconds the server may be silent; default: the HTTP settings' timeout, or 60"),
    "storage_class": Option(help="storage class of what is written, e.g. STANDARD_IA"),
    "sse": Option(help="server-side encryption of what is written", choices=("AES256", "aws:kms")),
    "sse_kms_key_id": Option(help="key of server-side encryption with aws:kms"),
    "unsigned_payload": Option(help="true: do not sign bodies; default: only over plain HTTP they are signed"),
    "part_size": Option(help="bytes of one part of an upload, at least 5 MiB; default 8 MiB"),
    "upload_threads": Option(help="parts of one object sent at once; default 4"),
    "v2_signing": Option(help="not supported: every current service takes version 4 signatures"),
}

KIND = Kind(
    name="s3",
    schemes=("s3", "s3a", "minio"),
    dial=_dial,
    summary="Amazon S3 and compatible services (Ceph, MinIO, R2, ...)",
    options=_OPTIONS,
)
