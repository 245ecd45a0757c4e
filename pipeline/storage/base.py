"""What a store promises, the keys it takes, and how a URI becomes a filesystem."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any, Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.exceptions import ConfigError

_SAFE_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_MAX_KEY = 200
"""Leaves room in a file name's 255 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object of a listing; `etag` changes when its bytes do."""

    key: str
    size: int
    etag: str


class Store(Protocol):
    """A prefix that holds one output.

    Every call may raise `ConfigError` (permission denied, no bucket) or `StorageError` (the store did not
    answer after all retries).
    """

    uri: str

    def read(self, key: str) -> bytes | None:
        """Read a whole object, or None where there is none."""

    def create(self, key: str, data: bytes) -> bool:
        """Publish an object whole; False where the key is already taken."""

    def replace(self, key: str, data: bytes) -> None:
        """Overwrite an object: heartbeats and the convenience report only."""

    def head(self, key: str) -> StoredObject | None:
        """Describe one object, or None where there is none."""

    def list(self, prefix: str) -> list[StoredObject]:
        """List everything below a folder ("" for all), in order of the key."""

    def delete(self, key: str) -> None:
        """Remove an object; only `clean` calls this."""

    def clock(self) -> datetime | None:
        """Return the store's own time, or None where it is this machine's."""


def is_key(key: str) -> bool:
    """Tell whether a store takes a key; a listing also has what others put there, such as `.DS_Store`."""
    return len(key) <= _MAX_KEY and _SAFE_KEY.fullmatch(key) is not None


def check_key(key: str) -> str:
    """Return a key that cannot leave the prefix; keys are made of unit numbers and hashes only."""
    if not is_key(key):
        msg = f"not a storage key: {key!r}"
        raise ValueError(msg)
    return key


def split_uri(uri: str) -> tuple[str, str]:
    """Return the protocol and the path; a local path becomes absolute, its links unresolved."""
    protocol, separator, rest = uri.partition("://")
    if separator and protocol not in ("file", "local"):
        return protocol, rest
    return "file", os.path.abspath(rest if separator else uri)  # noqa: PTH100 - resolve() would follow links


class _Disk(LocalFileSystem):  # type: ignore[misc] # fsspec has no types
    """Local files, listed whole or not at all: fsspec takes a folder that it cannot list for an empty one."""

    def glob(self, path: str, maxdepth: int | None = None, **options: Any) -> Any:
        """Find what matches, looking only into folders that may hold it."""
        return super().glob(path, maxdepth, within=path, **options)

    def walk(self, path: str, *depth: Any, within: str = "", **options: Any) -> Iterator[Any]:
        """List a tree, as fsspec does, or what of it may be `within` a pattern.

        Raises:
            OSError: a folder cannot be listed.
        """
        if not within or may_hold(path, within):
            yield from super().walk(path, *depth, **{**options, "within": within, "on_error": _raise})


def may_hold(folder: str, pattern: str) -> bool:
    """Tell whether something below a folder may match a pattern."""
    parts, wanted = PurePosixPath(folder).parts, PurePosixPath(pattern).parts
    for part, form in zip(parts, wanted, strict=False):
        if form == "**":
            return True
        if not fnmatchcase(part, form):
            return False
    return len(parts) < len(wanted)


def _raise(error: OSError) -> None:
    # at the root of a disk, where only its owner may look, and where no corpus is
    if PurePosixPath(error.filename or "").name != "lost+found":
        raise error


def client_errors(uri: str) -> tuple[type[Exception], ...]:
    """Return what the filesystem behind a URI may raise when its store fails: clients have errors of their own."""
    protocol = split_uri(uri)[0]
    if protocol == "file":
        return (OSError,)
    from pipeline.storage import failures  # boto takes 0.3 s to import

    return (*failures.CLIENT_ERRORS, failures.hub_errors()[0]) if protocol == "hf" else failures.CLIENT_ERRORS


def open_filesystem(uri: str, **options: Any) -> tuple[Any, str]:
    """Open the fsspec filesystem behind a URI with listing caches off, and the path on it.

    Args:
        uri: a URI or a local path.
        options: more of what the filesystem takes.

    Raises:
        ConfigError: the protocol is unknown or its package is not installed.
    """
    protocol, path = split_uri(uri)
    options["use_listings_cache"] = False
    if protocol in ("s3", "s3a"):
        options |= {"default_cache_type": "readahead", "default_block_size": 8 << 20}
    try:
        if protocol == "file":
            return _Disk(**options), path
        filesystem, path = fsspec.url_to_fs(uri, **options)
        return filesystem, path.rstrip("/") or "/"
    except (ValueError, ImportError) as error:
        raise ConfigError(uri, f"no filesystem for {protocol}://: {error}") from None
