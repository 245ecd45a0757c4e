"""A folder as a store: an object appears by a hard link from a synced temporary file."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from pipeline import failpoints
from pipeline.exceptions import ConfigError, StorageError
from pipeline.storage.base import StoredObject, check_key

TEMPORARY = "_job/tmp"
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)

T = TypeVar("T")


class LocalStore:
    """A folder on a disk that has hard links (or NFS); see `Store` for the calls."""

    def __init__(self, root: Path) -> None:
        self.uri = str(root)
        self._root = root

    def read(self, key: str) -> bytes | None:
        """Read a whole file, or None where there is none."""
        return self._guard(key, _read, "read")

    def create(self, key: str, data: bytes) -> bool:
        """Write, sync and link a temporary file to `key`; False where `key` exists."""
        return self._guard(key, lambda path: self._publish(path, data, _link))

    def replace(self, key: str, data: bytes) -> None:
        """Write, sync and rename a temporary file over `key`."""
        self._guard(key, lambda path: self._publish(path, data, _rename))

    def head(self, key: str) -> StoredObject | None:
        """Describe one file, or None where there is none."""
        return self._guard(key, self._describe, "read")

    def list(self, prefix: str) -> list[StoredObject]:
        """List all files below a folder."""
        folder = self._root / check_key(prefix) if prefix else self._root
        found = self._act(folder, lambda folder: list(_walk(str(folder), f"{prefix}/" if prefix else "")), "read")
        return sorted(found, key=attrgetter("key"))

    def delete(self, key: str) -> None:
        """Remove a file if it is there."""
        self._guard(key, lambda path: path.unlink(missing_ok=True))

    def clock(self) -> datetime | None:
        """Return None: files are stamped by this machine."""
        return None

    def _describe(self, path: Path) -> StoredObject | None:
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISDIR(status.st_mode):
            return None
        return _stored(path.relative_to(self._root).as_posix(), status)

    def _guard(self, key: str, act: Callable[[Path], T], done: str = "written") -> T:
        return self._act(self._root / check_key(key), act, done)

    def _act(self, path: Path, act: Callable[[Path], T], done: str) -> T:
        try:
            return act(path)
        except OSError as error:
            reason = f"{error.strerror or error} ({str(path)!r})"
            if error.errno in _DENIED:
                raise ConfigError("output.uri", f"cannot be {done}: {reason}") from error
            raise StorageError(str(path), reason) from error

    def _publish(self, path: Path, data: bytes, place: Callable[[Path, Path], bool]) -> bool:
        # never under data/, where a plain reader would see it; never a name used before: a process killed
        # after the link leaves one that is the published file itself
        temporary = self._root / TEMPORARY / f"{path.name}.{uuid.uuid4().hex}"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            failpoints.hit("local.before_link")
            placed = place(temporary, path)
            failpoints.hit("local.after_link")
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return placed


def _read(path: Path) -> bytes | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return path.read_bytes()
    return None


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        # NFS may report an error for a link that was made: its reply was lost
        if temporary.stat().st_nlink != 2:
            raise
    return True


def _rename(temporary: Path, path: Path) -> bool:
    temporary.replace(path)
    return True


def _walk(folder: str, prefix: str) -> Iterator[StoredObject]:
    """Describe all files below a folder; links to files count, links to folders do not.

    A folder that is not there holds nothing; one that cannot be read is an error, since resume would take its
    shards for missing.
    """
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.is_dir():
                if not entry.is_symlink():
                    yield from _walk(entry.path, f"{prefix}{entry.name}/")
                continue
            with suppress(FileNotFoundError):
                yield _stored(prefix + entry.name, entry.stat())


def _stored(key: str, status: os.stat_result) -> StoredObject:
    return StoredObject(key=key, size=status.st_size, etag=f"{status.st_mtime_ns}-{status.st_ino}")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
