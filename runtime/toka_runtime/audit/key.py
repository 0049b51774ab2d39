"""The key of one log: a secret file beside it, which only the operator's user can read, and agents never can."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from toka_runtime.audit.chain import Head, statement
from toka_runtime.errors import StoreError
from toka_runtime.whole_file import replace_file, write_new

KEY_FILE = "audit.key"
PUBLIC_FILE = "audit.pub"
_SECRET_BYTES = 32


class PublicKey:
    """Of 32 bytes; checks what an `AuditKey` has signed."""

    def __init__(self, raw: bytes) -> None:
        """Raises ValueError for what is no key."""
        self.raw = raw
        self._key = Ed25519PublicKey.from_public_bytes(raw)

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """64 hexadecimal digits. Raises StoreError."""
        try:
            return cls(bytes.fromhex(text.strip()))
        except ValueError as error:
            raise StoreError(
                f"{text.strip()[:80]!r} is no public audit key", hint="give the 64 hexadecimal digits of audit.pub"
            ) from error

    def __str__(self) -> str:
        return self.raw.hex()

    def signed(self, said: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, said)
        except InvalidSignature:
            return False
        return True


class AuditKey:
    """Seals (HMAC, to be checked with this key only) and signs (to be checked with its public key)."""

    def __init__(self, sealing: bytes, signing: bytes) -> None:
        self._sealing = sealing
        self._signing = Ed25519PrivateKey.from_private_bytes(signing)
        self.public = PublicKey(self._signing.public_key().public_bytes_raw())

    @classmethod
    def load(cls, folder: Path) -> AuditKey:
        """Raises FileNotFoundError when there is none, StoreError when it is not usable or not secret."""
        path = folder / KEY_FILE
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"cannot read the audit key {path}: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
                raise StoreError(
                    f"the audit key {path} can be read by others", hint=f"chmod 600 {path}, and ask who could read it"
                )
            raw = file.read(4096)
        try:
            found: Any = json.loads(raw)
            return cls(_secret(found["hmac"]), _secret(found["ed25519"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"the audit key {path} is damaged", hint="put it back from a copy") from error

    @classmethod
    def create(cls, folder: Path) -> AuditKey:
        """A new key, and its public half beside it. Never in place of another."""
        sealing, signing = secrets.token_bytes(_SECRET_BYTES), secrets.token_bytes(_SECRET_BYTES)
        key = cls(sealing, signing)
        text = json.dumps({"hmac": sealing.hex(), "ed25519": signing.hex()})
        path = folder / KEY_FILE
        try:
            write_new(path, text.encode())
            replace_file(folder / PUBLIC_FILE, f"{key.public}\n".encode())
        except OSError as error:
            raise StoreError(
                f"cannot make the audit key {path}: {error.strerror}", hint="check the folder's disk and permissions"
            ) from error
        return key

    def sign(self, said: bytes) -> bytes:
        return self._signing.sign(said)

    def seal(self, head: Head) -> bytes:
        return hmac.digest(self._sealing, statement("head", head.seq, head.hash.hex()), "sha256")

    def sealed(self, head: Head, seal: bytes) -> bool:
        return hmac.compare_digest(self.seal(head), seal)


def _secret(text: Any) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != _SECRET_BYTES:
        raise ValueError("wrong length")
    return raw
