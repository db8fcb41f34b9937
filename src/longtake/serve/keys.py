"""Who asks: random keys, of which only hashes are kept."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from longtake.core.errors import ConfigError, StorageError

LOCAL = "local"
PREFIX = "lt-"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def hash_key(key: str) -> str:
    """Return the SHA-256 of a key; it holds 256 random bits, so that no slower hash is needed."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


@dataclasses.dataclass(frozen=True)
class KeyRing:
    """Names and hashes of the keys that are let in; none at all lets everybody in under the name `local`."""

    entries: tuple[tuple[str, str], ...] | None = None

    @classmethod
    def read(cls, path: str | None) -> KeyRing:
        """Read a file of lines `name hash`; empty lines and those that begin with # say nothing.

        Raises: ConfigError for a file that cannot be read, holds no key, or a line of another form.
        """
        if path is None:
            return cls(None)
        try:
            lines = Path(path).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the keys {path} cannot be read ({error}); expected a file; see --add-key") from error
        entries: list[tuple[str, str]] = []
        for number, line in enumerate(lines, start=1):
            parts = line.split()
            if not parts or parts[0].startswith("#"):
                continue
            if len(parts) != 2 or not _NAME.fullmatch(parts[0]) or not _DIGEST.fullmatch(parts[1]):
                raise ConfigError(f"line {number} of {path} is no `name sha256`; expected both; make it with --add-key")
            entries.append((parts[0], parts[1]))
        if not entries or len({name for name, _ in entries}) < len(entries):
            raise ConfigError(f"{path} holds no key, or a name twice; expected one key a name; see --add-key")
        return cls(tuple(entries))

    def owner(self, authorization: str | None) -> str | None:
        """Return whose key an Authorization header bears; none if it is nobody's.

        Every entry is compared, each in constant time.
        """
        if self.entries is None:
            return LOCAL
        scheme, _, key = (authorization or "").partition(" ")
        digest, found = hash_key(key.strip()), None
        for name, known in self.entries:
            if hmac.compare_digest(digest, known):
                found = name
        return found if scheme.lower() == "bearer" else None


def add_key(path: str | Path, name: str) -> str:
    """Make a key, append its hash to a file that only its owner may read, and return it.

    Raises: ConfigError for a bad name or one that is taken; StorageError if the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"the key's name is {name!r}; expected 1 to 64 of A-Z a-z 0-9 _ -; choose another")
    file = Path(path)
    if file.exists() and any(name == known for known, _ in KeyRing.read(str(file)).entries or ()):
        raise ConfigError(f"{path} has a key {name} already; expected another name; remove its line to replace it")
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(f"{name} {hash_key(key)}\n")
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}); expected a file; choose another") from error
    return key
