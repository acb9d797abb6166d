"""Signed URLs, used over HTTP as their holders use them: without the store, its clients or its credentials."""

from __future__ import annotations

import base64
import hashlib
import time
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from datastore.errors import LimitExceeded, NotSupported
from datastore.model import Feature, SignedURLProperties, SignedURLResponse, SignedURLScope
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, assert_absent, content, needs
from datastore.testing.harness import Harness, HttpAnswer

__all__ = ["SigningTests"]

_READ, _WRITE = SignedURLScope.READ, SignedURLScope.WRITE
_HEAD, _DELETE = SignedURLScope.HEAD, SignedURLScope.DELETE


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


class SigningTests(KitTests):
    """A signed URL lets its holder do one thing, with one object, for a while."""

    @pytest.fixture
    def ref(self, store: Store, place: DataReference) -> DataReference:
        """An object of 1,000 bytes."""
        ref = place.join("signed object")
        store.write_bytes(ref, content(1000))
        return ref

    @needs(Feature.SIGN_READ)
    def test_signed_reading(self, harness: Harness, ref: DataReference) -> None:
        """A URL to read yields the object, or the range a header asks for, and demands no headers."""
        signed = _sign(harness, ref, scope=_READ)
        assert (signed.method, dict(signed.required_request_headers)) == ("GET", {})
        answer = _use(harness, signed)
        assert (200, content(1000)) == (answer.status, answer.body)
        answer = harness.send("GET", signed.url, {"Range": "bytes=10-19"})
        assert (206, content(1000)[10:20]) == (answer.status, answer.body)

    @needs(Feature.SIGN_READ)
    def test_signed_reading_of_what_is_not_there(self, harness: Harness, place: DataReference) -> None:
        """Signing asks the backend nothing: the URL of a missing object is made, and answers 404 until it exists."""
        signed = _sign(harness, place.join("later"), scope=_READ)
        assert _use(harness, signed).status == 404
        harness.store.write_bytes(place.join("later"), b"now")
        assert _use(harness, signed).body == b"now"

    @needs(Feature.SIGN_WRITE)
    def test_signed_writing(self, harness: Harness, store: Store, place: DataReference) -> None:
        """A URL to write makes and replaces the object."""
        ref = place.join("uploaded")
        signed = _sign(harness, ref, scope=_WRITE)
        assert signed.method == "PUT"
        for data in (content(1000), b"", b"shorter"):
            assert _use(harness, signed, data).status in (200, 201)
            assert data == store.read_bytes(ref)

    @needs(Feature.SIGN_HEAD)
    def test_signed_head(self, harness: Harness, ref: DataReference) -> None:
        """A URL for HEAD tells the size and sends no bytes."""
        signed = _sign(harness, ref, scope=_HEAD)
        answer = _use(harness, signed)
        assert (signed.method, answer.status, answer.body) == ("HEAD", 200, b"")
        assert answer.headers["content-length"] == "1000"

    @needs(Feature.SIGN_DELETE)
    def test_signed_deleting(self, harness: Harness, store: Store, ref: DataReference) -> None:
        """A URL to delete removes its object."""
        signed = _sign(harness, ref, scope=_DELETE)
        assert signed.method == "DELETE"
        assert _use(harness, signed).status in (200, 202, 204)
        assert_absent(store, ref)

    @pytest.mark.parametrize("scope", SignedURLScope)
    def test_a_url_serves_only_its_own_verb(self, harness: Harness, ref: DataReference, scope: SignedURLScope) -> None:
        """No other method is served, but those the harness declares; the object stays as it was."""
        _require(harness, scope)
        signed = _sign(harness, ref, scope=scope)
        for method in {"GET", "PUT", "HEAD", "DELETE"} - {signed.method, *harness.also_served.get(scope, ())}:
            body = b"not allowed" if method == "PUT" else None
            answer = harness.send(method, signed.url, signed.required_request_headers, body)
            assert answer.refused, f"{method} with a URL to {scope.value} was answered {answer.status}"
            assert content(1000) == harness.store.read_bytes(ref)

    @pytest.mark.parametrize("scope", SignedURLScope)
    def test_a_tampered_url_is_refused(
        self, harness: Harness, place: DataReference, ref: DataReference, scope: SignedURLScope
    ) -> None:
        """A signature is good for its object alone, and not when it was changed or taken off."""
        _require(harness, scope)
        other = place.join("signed object 2")
        harness.store.write_bytes(other, b"other")
        signed = _sign(harness, ref, scope=scope)
        theirs = _sign(harness, other, scope=scope)
        parts = urlsplit(signed.url)
        body = b"tampered" if scope is _WRITE else None
        for url in (
            parts._replace(path=urlsplit(theirs.url).path).geturl(),
            parts._replace(query=_changed_signature(parts.query)).geturl(),
            parts._replace(query="").geturl(),
        ):
            assert harness.send(signed.method, url, signed.required_request_headers, body).refused
        assert content(1000) == harness.store.read_bytes(ref)
        assert harness.store.read_bytes(other) == b"other"

    @pytest.mark.parametrize("scope", [_READ, _WRITE])
    def test_an_expired_url_is_refused(self, harness: Harness, ref: DataReference, scope: SignedURLScope) -> None:
        """It works until then, and not afterwards."""
        _require(harness, scope)
        signed = _sign(harness, ref, scope=scope, expires_in=1)
        time.sleep(3)
        assert _use(harness, signed, b"late" if scope is _WRITE else None).refused
        assert content(1000) == harness.store.read_bytes(ref)

    def test_a_url_that_would_live_too_long_is_refused(self, harness: Harness, ref: DataReference) -> None:
        """The longest life declared can be had; a second more is refused."""
        _require(harness, _READ)
        longest = harness.capabilities.max_sign_seconds
        assert _use(harness, _sign(harness, ref, scope=_READ, expires_in=longest)).status == 200
        with pytest.raises(LimitExceeded):
            _sign(harness, ref, scope=_READ, expires_in=longest + 1)

    @needs(Feature.SIGN_WRITE)
    def test_the_required_headers_are_honoured(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Sent as told, they become type, metadata and digest of the object."""
        ref, data = place.join("uploaded"), content(500)
        wanted: dict[str, object] = {"content_md5": _md5(data), "content_length": len(data)}
        if Feature.CONTENT_HEADERS in harness.capabilities:
            wanted["content_type"] = "text/x-kit"
        if Feature.USER_METADATA in harness.capabilities:
            wanted["metadata"] = {"Owner": "kit", "number": "7"}
            wanted["add_content_md5_metadata"] = True
        signed = _sign(harness, ref, scope=_WRITE, **wanted)
        answer = _use(harness, signed, data)
        assert answer.status in (200, 201), answer.body
        known = store.head(ref)
        assert data == store.read_bytes(ref)
        if "content_type" in wanted:
            assert known.content_type == "text/x-kit"
        if "metadata" in wanted:
            assert _md5(data) == known.content_md5
            assert {"owner": "kit", "number": "7"}.items() <= dict(known.user_metadata).items()

    @needs(Feature.SIGN_WRITE)
    def test_other_data_than_signed_are_refused(self, harness: Harness, store: Store, ref: DataReference) -> None:
        """With a digest among the headers other bytes are refused, and the old object stays."""
        signed = _sign(harness, ref, scope=_WRITE, content_md5=_md5(b"these"))
        answer = _use(harness, signed, b"those")
        assert answer.refused, answer
        assert content(1000) == store.read_bytes(ref)
        assert _use(harness, signed, b"these").status in (200, 201)
        assert store.read_bytes(ref) == b"these"

    @needs(Feature.SIGN_WRITE, Feature.SIGNED_HEADERS)
    def test_headers_cannot_be_dropped_or_changed(self, harness: Harness, store: Store, ref: DataReference) -> None:
        """Where headers are signed, leaving one out or changing it is refused."""
        data = b"12345"
        signed = _sign(
            harness,
            ref,
            scope=_WRITE,
            content_md5=_md5(data),
            content_type="text/x-kit",
            metadata={"owner": "kit"},
        )
        required = dict(signed.required_request_headers)
        assert required
        for name in required:
            without = {key: value for key, value in required.items() if key != name}
            for headers in (without, {**required, name: "forged"}):
                assert harness.send("PUT", signed.url, headers, data).refused, f"{name} is not enforced"
        assert content(1000) == store.read_bytes(ref)
        assert harness.send("PUT", signed.url, required, data).status in (200, 201)

    @needs(Feature.SIGN_WRITE, Feature.SIGNED_HEADERS)
    def test_a_signed_length_is_enforced(self, harness: Harness, store: Store, ref: DataReference) -> None:
        """A URL for five bytes takes five bytes."""
        signed = _sign(harness, ref, scope=_WRITE, content_length=5)
        for data in (b"1234", b"123456"):
            headers = {**signed.required_request_headers, "Content-Length": str(len(data))}
            assert harness.send("PUT", signed.url, headers, data).refused
        assert content(1000) == store.read_bytes(ref)
        assert _use(harness, signed, b"12345").status in (200, 201)

    @needs(Feature.SIGN_WRITE, Feature.CREATE_IF_ABSENT)
    def test_signed_creating(self, harness: Harness, store: Store, place: DataReference) -> None:
        """A URL to create works once, or the store says beforehand that it cannot promise that."""
        ref = place.join("created")
        try:
            signed = _sign(harness, ref, scope=_WRITE, if_absent=True)
        except NotSupported:
            return
        assert _use(harness, signed, b"first").status in (200, 201)
        assert _use(harness, signed, b"second").refused
        assert store.read_bytes(ref) == b"first"

    @pytest.mark.parametrize("scope", SignedURLScope)
    def test_what_cannot_be_signed_is_refused(
        self, harness: Harness, ref: DataReference, scope: SignedURLScope
    ) -> None:
        """A scope that is not declared is an honest error, for objects that are there and that are not."""
        if harness.capabilities.sign_feature(scope) in harness.capabilities:
            pytest.skip(f"the store signs URLs to {scope.value}")
        for target in (ref, ref.join("nothing")):
            with pytest.raises(NotSupported):
                harness.store.create_signed_url(target, SignedURLProperties(scope=scope))
        assert content(1000) == harness.store.read_bytes(ref)

    def test_the_url_is_kept_out_of_logs(self, harness: Harness, ref: DataReference) -> None:
        """A signed URL is a credential: its representation shows no signature, and its text no secret key."""
        _require(harness, _READ)
        signed = _sign(harness, ref, scope=_READ)
        assert urlsplit(signed.url).query not in repr(signed)
        for secret in harness.secrets:
            assert secret not in signed.url


def _changed_signature(query: str) -> str:
    """The query with one character of its signature changed."""
    fields = parse_qsl(query, keep_blank_values=True)
    found = [
        (name, _flipped(value) if name.lower().endswith(("signature", "sig")) else value) for name, value in fields
    ]
    assert found != fields, f"no signature among {[name for name, _ in fields]}"
    return urlencode(found)


def _flipped(text: str) -> str:
    # The first character: the last one of base64 may hold bits that mean nothing.
    return ("B" if text[0] in "Aa" else "A" if not text[0].isdigit() else str((int(text[0]) + 1) % 10)) + text[1:]


def _require(harness: Harness, scope: SignedURLScope) -> None:
    if harness.capabilities.sign_feature(scope) not in harness.capabilities:
        pytest.skip(f"the store does not sign URLs to {scope.value}")


def _sign(harness: Harness, ref: DataReference, **properties: object) -> SignedURLResponse:
    known = {"expires_in": 60, **properties}
    return harness.store.create_signed_url(ref, SignedURLProperties(**known))  # type: ignore[arg-type]


def _use(harness: Harness, signed: SignedURLResponse, body: bytes | None = None) -> HttpAnswer:
    return harness.send(signed.method, signed.url, signed.required_request_headers, body)
