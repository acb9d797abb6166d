"""Encryption: from what a user holds, a key or a passphrase, to the keys that seal the blocks of one root.

The root's ``format.json`` records how the keys are derived and a value to check them by, never a secret.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from attrs import field, frozen

from datastore.errors import ConfigError, PermissionDenied

__all__ = ["KEY_BYTES", "Encryption", "KeySource", "Passphrase", "RootKeys", "ScryptParameters", "WrongKey", "load_key"]

#: Bytes of a master key.
KEY_BYTES: Final = 32

_CIPHER = "AES-256-GCM"
_DERIVATION = "HKDF-SHA256"
_SALT_BYTES = 32
_CHECK_BYTES = 16


class WrongKey(PermissionDenied):
    """The key or passphrase is not the one the root was made with."""


@frozen
class Passphrase:
    """A secret for people, stretched by scrypt; given as text, or as a function that asks for it."""

    _text: str | Callable[[], str] = field(repr=False)

    def read(self) -> bytes:
        """The passphrase in UTF-8.

        Raises:
            ConfigError: it is empty.
        """
        text = self._text() if callable(self._text) else self._text
        if not text:
            raise ConfigError("the passphrase is empty", hint="give the one the root was made with")
        return text.encode()


#: Where a key comes from: its 32 bytes, ``env:NAME``, ``file:PATH``, a path, a function, or a passphrase.
KeySource: TypeAlias = bytes | str | os.PathLike[str] | Callable[[], bytes] | Passphrase


@frozen(repr=False)
class RootKeys:
    """The keys of one root, derived from its master key, each for one purpose."""

    naming: bytes
    sealing: bytes


@frozen(kw_only=True)
class ScryptParameters:
    """How a passphrase becomes a master key (RFC 7914); the memory it takes is 128 * n * r bytes."""

    salt: bytes
    n: int = 1 << 17
    r: int = 8
    p: int = 1

    def __attrs_post_init__(self) -> None:
        # A hostile root must not make its reader take all memory, or all day.
        fits = 1 << 14 <= self.n <= 1 << 20 and self.n.bit_count() == 1 and 1 <= self.r <= 16 and 1 <= self.p <= 16
        if not fits or len(self.salt) != _SALT_BYTES:
            raise ConfigError(f"scrypt parameters n={self.n}, r={self.r}, p={self.p} are out of range")

    def stretch(self, passphrase: bytes) -> bytes:
        """The master key of a passphrase."""
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        return Scrypt(salt=self.salt, length=KEY_BYTES, n=self.n, r=self.r, p=self.p).derive(passphrase)


@frozen(kw_only=True)
class Encryption:
    """How a root is encrypted, without its secrets: what ``format.json`` keeps.

    ``salt`` makes equal master keys into different keys in every root; ``check`` tells a wrong key at once;
    ``scrypt`` is there when a passphrase is used.
    """

    salt: bytes
    check: bytes
    scrypt: ScryptParameters | None = None

    @classmethod
    def create(cls, source: KeySource, *, scrypt_n: int = 1 << 17) -> tuple[Encryption, RootKeys]:
        """Encryption for a new root, with fresh salts, and the keys that go with it.

        Raises:
            ConfigError: the source holds no key.
        """
        scrypt = None
        if isinstance(source, Passphrase):
            scrypt = ScryptParameters(salt=os.urandom(_SALT_BYTES), n=scrypt_n)
        salt = os.urandom(_SALT_BYTES)
        master = _master(source, scrypt)
        return cls(salt=salt, check=_check(master, salt), scrypt=scrypt), _keys(master, salt)

    def unlock(self, source: KeySource) -> RootKeys:
        """The keys of the root.

        Raises:
            WrongKey: the source holds another key.
            ConfigError: the source holds no key, or a key where a passphrase is needed, or the other way round.
        """
        if (self.scrypt is not None) is not isinstance(source, Passphrase):
            wanted = "a passphrase" if self.scrypt else "a key"
            raise ConfigError(f"the root is encrypted with {wanted}", hint=f"give {wanted}")
        master = _master(source, self.scrypt)
        if not hmac.compare_digest(_check(master, self.salt), self.check):
            raise WrongKey(
                "this is not the key the root was encrypted with", hint="give the key or passphrase used to make it"
            )
        return _keys(master, self.salt)

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON; bytes in hexadecimal."""
        data: dict[str, Any] = {
            "cipher": _CIPHER,
            "derivation": _DERIVATION,
            "salt": self.salt.hex(),
            "check": self.check.hex(),
            "passphrase": None,
        }
        if self.scrypt is not None:
            scrypt = self.scrypt
            data["passphrase"] = {
                "kdf": "scrypt",
                "salt": scrypt.salt.hex(),
                "n": scrypt.n,
                "r": scrypt.r,
                "p": scrypt.p,
            }
        return data

    @classmethod
    def from_data(cls, data: object) -> Encryption:
        """Reads `to_data`.

        Raises:
            ConfigError: it is something else, or asks for methods this release does not know.
        """
        if not isinstance(data, Mapping):
            raise ConfigError("the encryption settings are damaged")
        if (data.get("cipher"), data.get("derivation")) != (_CIPHER, _DERIVATION):
            raise ConfigError(
                f"the root is encrypted with {data.get('cipher')!r} and {data.get('derivation')!r}, "
                f"this release knows {_CIPHER} and {_DERIVATION}",
                hint="use a newer release",
            )
        try:
            salt, check = bytes.fromhex(data["salt"]), bytes.fromhex(data["check"])
            scrypt = _scrypt(data.get("passphrase"))
        except ConfigError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError("the encryption settings are damaged") from error
        if len(salt) != _SALT_BYTES or len(check) != _CHECK_BYTES:
            raise ConfigError("the encryption settings are damaged")
        return cls(salt=salt, check=check, scrypt=scrypt)


def load_key(source: bytes | str | os.PathLike[str] | Callable[[], bytes]) -> bytes:
    """The 32 bytes of a key, which files and variables may hold raw, in hexadecimal or in base64.

    Raises:
        ConfigError: there is no key, or something else; the message never shows what was found.
    """
    if isinstance(source, bytes):
        return _as_key(source, "the key given")
    if isinstance(source, str):
        kind, _, rest = source.partition(":")
        if kind == "env":
            if rest not in os.environ:
                raise ConfigError(f"the environment variable {rest} is not set", hint="it should hold the key")
            return _as_key(os.environ[rest].encode(), f"the environment variable {rest}")
        if kind == "file":
            return _from_file(Path(rest))
        raise ConfigError(
            "a key given as text is env:NAME or file:PATH", hint="give the key itself as 32 bytes, not as text"
        )
    if callable(source):
        found = source()
        if not isinstance(found, bytes):
            raise ConfigError(f"the function asked for the key returned {type(found).__name__}, not bytes")
        return _as_key(found, "what the function returned")
    return _from_file(Path(source))


def _master(source: KeySource, scrypt: ScryptParameters | None) -> bytes:
    if isinstance(source, Passphrase):
        assert scrypt is not None
        return scrypt.stretch(source.read())
    return load_key(source)


def _from_file(path: Path) -> bytes:
    try:
        with path.expanduser().open("rb") as file:
            found = file.read(1024)
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be read: {error.strerror}") from error
    return _as_key(found, f"the key file {path}")


def _as_key(found: bytes, where: str) -> bytes:
    if len(found) == KEY_BYTES:
        return found
    text = found.strip()
    for decode in (binascii.unhexlify, _base64):
        try:
            key = decode(text)
        except (binascii.Error, ValueError):
            continue
        if len(key) == KEY_BYTES:
            return key
    raise ConfigError(
        f"{where} holds no key of {KEY_BYTES} bytes",
        hint="write it raw, in hexadecimal or in base64, or use Passphrase",
    )


def _base64(text: bytes) -> bytes:
    return base64.b64decode(text, validate=True)


def _scrypt(data: Any) -> ScryptParameters | None:
    if data is None:
        return None
    if data["kdf"] != "scrypt":
        raise ConfigError(
            f"the passphrase is stretched by {data['kdf']!r}, this release knows scrypt", hint="use a newer release"
        )
    n, r, p = (data[name] for name in ("n", "r", "p"))
    if not all(isinstance(number, int) for number in (n, r, p)):
        raise ValueError("not a number")
    return ScryptParameters(salt=bytes.fromhex(data["salt"]), n=n, r=r, p=p)


def _keys(master: bytes, salt: bytes) -> RootKeys:
    return RootKeys(
        naming=_derive(master, salt, b"naming", KEY_BYTES), sealing=_derive(master, salt, b"sealing", KEY_BYTES)
    )


def _check(master: bytes, salt: bytes) -> bytes:
    return _derive(master, salt, b"check", _CHECK_BYTES)


def _derive(master: bytes, salt: bytes, purpose: bytes, length: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=b"stowstore volume 1 " + purpose).derive(master)
