"""What is the generic libcloud kind's own: providers, options, and refusals."""

import pytest

from datastore.errors import ConfigError
from stowstore.locations.base import Dial, HttpSettings
from stowstore.locations.libcloud import KIND, LibcloudLocation


def _dial(**options: str) -> LibcloudLocation:
    location = KIND.dial(Dial(options=KIND.check({"key": "user", **options}), http=HttpSettings()))
    assert isinstance(location, LibcloudLocation)
    return location


@pytest.mark.parametrize(("provider", "use"), [("local", "file://"), ("dummy", "mem://"), ("openstack_swift", "sw://")])
def test_unsafe_providers_are_refused(provider: str, use: str) -> None:
    """The error says why, and what to use."""
    with pytest.raises(ConfigError, match=use):
        _dial(provider=provider)


def test_an_unknown_provider_names_the_nearest() -> None:
    """A slip of the pen is easily mended."""
    with pytest.raises(ConfigError, match="backblaze_b2"):
        _dial(provider="backblaze-b3")


def test_the_scheme_has_no_underscore() -> None:
    """A scheme is letters, digits and dashes; libcloud's names have underscores."""
    location = _dial(provider="azure-blobs", secret="d2Vhaw==")
    assert (location.kind, location.scheme) == ("libcloud+azure_blobs", "libcloud+azure-blobs")


def test_driver_options_are_json() -> None:
    """What only one driver takes is passed on as it is."""
    with pytest.raises(ConfigError, match="no JSON object"):
        _dial(provider="s3", secret="x", driver_options="token=1")
    with pytest.raises(ConfigError, match="does not take"):
        _dial(provider="s3", secret="x", host="h", region="nowhere", driver_options='{"port": "no-number"}')


def test_two_endpoints_of_one_provider_are_apart() -> None:
    """libcloud's MinIO driver keeps its host on the class."""
    first = _dial(provider="minio", secret="x", host="first.example", secure="false", port="1")
    second = _dial(provider="minio", secret="x", host="second.example", secure="false", port="1")
    hosts = [location._drivers.get().connection.host for location in (first, second)]
    assert hosts == ["first.example", "second.example"]


def test_no_secret_is_shown() -> None:
    """Neither the location nor its options show what they hold."""
    options = KIND.check({"provider": "s3", "key": "user", "secret": "hidden", "driver_options": '{"token": "hidden"}'})
    assert "hidden" not in repr(options)
    assert "hidden" not in repr(_dial(provider="s3", secret="hidden"))
