"""Keys come from where users keep them, are told right from wrong, and leave no trace."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from datastore.errors import ConfigError
from stowstore.chunks.encryption import Encryption, Passphrase, ScryptParameters, WrongKey, load_key

KEY = bytes(range(32))


@pytest.mark.parametrize(
    "write", [bytes, lambda key: key.hex().encode() + b"\n", lambda key: base64.b64encode(key) + b"\n"]
)
def test_a_key_file_holds_the_key_raw_or_as_text(write: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Hexadecimal and base64 may end in a newline."""
    path = tmp_path / "key"
    path.write_bytes(write(KEY))
    assert KEY == load_key(path) == load_key(f"file:{path}")


def test_a_key_comes_from_bytes_the_environment_or_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sources give the same key."""
    monkeypatch.setenv("STOW_TEST_KEY", KEY.hex())
    assert KEY == load_key(KEY) == load_key("env:STOW_TEST_KEY") == load_key(lambda: KEY)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"short", "32 bytes"),
        ("env:STOW_NOT_SET", "STOW_NOT_SET is not set"),
        ("file:/nowhere/at/all", "/nowhere/at/all cannot be read"),
        ("hunter2-hunter2-hunter2-hunter2-", "env:NAME or file:PATH"),
        (lambda: "text", "returned str"),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(source: object, says: str) -> None:
    """The error says what to do; a secret given in the wrong way stays out of it."""
    with pytest.raises(ConfigError, match=says) as caught:
        load_key(source)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("right", "wrong"), [(KEY, b"x" * 32), (Passphrase("open"), Passphrase("sesame"))])
def test_settings_survive_json_and_tell_a_wrong_key(right: bytes | Passphrase, wrong: bytes | Passphrase) -> None:
    """Whoever has the settings and the right source has the keys, nobody else."""
    settings, keys = Encryption.create(right, scrypt_n=1 << 14)
    again = Encryption.from_data(json.loads(json.dumps(settings.to_data())))
    assert settings == again
    assert keys == again.unlock(right)
    with pytest.raises(WrongKey, match="not the key"):
        again.unlock(wrong)


def test_a_key_is_not_taken_for_a_passphrase() -> None:
    """The settings say which is wanted, either way round."""
    by_key, _ = Encryption.create(KEY)
    by_phrase, _ = Encryption.create(Passphrase(lambda: "open"), scrypt_n=1 << 14)
    with pytest.raises(ConfigError, match="encrypted with a key"):
        by_key.unlock(Passphrase("open"))
    with pytest.raises(ConfigError, match="encrypted with a passphrase"):
        by_phrase.unlock(KEY)
    with pytest.raises(ConfigError, match="empty"):
        by_phrase.unlock(Passphrase(""))


def test_equal_master_keys_give_different_keys_in_every_root() -> None:
    """Each root has a salt of its own, and each purpose its own key."""
    _, one = Encryption.create(KEY)
    _, other = Encryption.create(KEY)
    assert 4 == len({one.naming, one.sealing, other.naming, other.sealing})


def test_no_secret_shows() -> None:
    """Neither in what is stored nor in any repr."""
    settings, keys = Encryption.create(KEY)
    for shown in (repr(settings), repr(keys), json.dumps(settings.to_data())):
        for secret in (KEY, keys.naming, keys.sealing):
            assert secret.hex() not in shown
            assert repr(secret) not in shown
    assert "sesame" not in repr(Passphrase("sesame"))


@pytest.mark.parametrize(
    "damage",
    [
        {"cipher": "ROT13"},
        {"derivation": None},
        {"salt": "00"},
        {"salt": "zz"},
        {"check": 7},
        {"passphrase": {"kdf": "md5"}},
        {"passphrase": {"kdf": "scrypt"}},
        {"passphrase": {"kdf": "scrypt", "salt": "00" * 32, "n": 1 << 40, "r": 8, "p": 1}},
        {"passphrase": {"kdf": "scrypt", "salt": "00" * 32, "n": 1 << 15, "r": 8, "p": 1 << 30}},
        {"passphrase": {"kdf": "scrypt", "salt": "00" * 32, "n": "many", "r": 8, "p": 1}},
    ],
)
def test_hostile_settings_are_refused(damage: dict[str, object]) -> None:
    """Unknown methods, and work or memory without bound, are errors before anything is derived."""
    settings, _ = Encryption.create(KEY)
    with pytest.raises(ConfigError):
        Encryption.from_data({**settings.to_data(), **damage})


def test_settings_are_a_mapping() -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigError, match="damaged"):
        Encryption.from_data("AES")


@pytest.mark.parametrize("n", [1 << 10, 3 << 14, 1 << 30])
def test_scrypt_parameters_are_neither_weak_nor_endless(n: int) -> None:
    """n is a power of two between 2^14 and 2^20."""
    with pytest.raises(ConfigError, match="out of range"):
        ScryptParameters(salt=b"s" * 32, n=n)
