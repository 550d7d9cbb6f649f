"""The key that receipts are signed with: made once, kept readable by its owner alone, never overwritten."""

import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from services import files
from services.audit import AuditLog, account
from services.errors import Conflict, NotFound, PlatformError

FOLDER: Final = "distill/keys"
PRIVATE: Final = "receipts.pem"
PUBLIC: Final = "receipts.pub.pem"
KEY_BYTES_MAX: Final = 10_000


class KeyUnusable(PlatformError):
    """The key file is there and cannot be used; nothing is signed with another one instead."""

    code = "key_unusable"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What signatures are verified with. `pem` is what is published."""

    pem: str
    id: str
    _key: Ed25519PublicKey

    @classmethod
    def of(cls, key: Ed25519PublicKey) -> "PublicKey":
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return cls(pem, hashlib.sha256(der).hexdigest(), key)

    @classmethod
    def load(cls, path: Path) -> "PublicKey":
        """Read a PEM file. Raises `NotFound` or `KeyUnusable`."""
        try:
            with path.open("rb") as file:
                key = load_pem_public_key(file.read(KEY_BYTES_MAX))
        except FileNotFoundError:
            raise NotFound(f"there is no public key at {path}", code="key_missing") from None
        except (OSError, ValueError) as error:
            raise KeyUnusable(f"{path} cannot be read as a PEM public key: {error}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise KeyUnusable(f"{path} is not an Ed25519 key")
        return cls.of(key)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private key. It is never shown, logged or sent."""

    public: PublicKey
    _key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"SigningKey({self.public.id})"

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def private_path(data: Path) -> Path:
    return data / FOLDER / PRIVATE


def public_path(data: Path) -> Path:
    return data / FOLDER / PUBLIC


def generate(data: Path) -> PublicKey:
    """Make the key of a data folder. Raises `Conflict` when there is one: what it signed needs it.

    The audit log is told first: raises `Unavailable`, and makes none, where that cannot be done.
    """
    path = private_path(data)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    files.replace(temporary, pem, mode=0o600)
    public = PublicKey.of(key.public_key())
    try:
        if not path.exists():
            AuditLog(data).append("signing_key_created", public.id, account(), {"signs": "receipts"})
        os.link(temporary, path)  # unlike a rename, this fails where there is a key already
    except FileExistsError:
        raise Conflict(
            f"{path} exists and is not overwritten; receipts that it signed are verified with it",
            code="key_exists",
        ) from None
    finally:
        temporary.unlink()
    files.replace(public_path(data), public.pem.encode(), mode=0o644)
    return public


def load(data: Path) -> SigningKey:
    """Read the key of a data folder. Raises `NotFound` or `KeyUnusable`."""
    path = private_path(data)
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(KEY_BYTES_MAX)
    except FileNotFoundError:
        raise NotFound(f"there is no key at {path}", code="key_missing") from None
    except OSError as error:
        raise KeyUnusable(f"{path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise KeyUnusable(f"{path} has mode {mode:04o}, so others may read it; chmod 600 it")
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        raise KeyUnusable(f"{path} is not a PEM private key without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} is not an Ed25519 key")
    return SigningKey(PublicKey.of(key.public_key()), key)
