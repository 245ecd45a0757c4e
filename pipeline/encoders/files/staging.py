"""The model cache of a node: each entry is filled once, under a lock, and appears whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "EMBATCH_CACHE"


def cache_root() -> Path:
    """Return where this node keeps models: `EMBATCH_CACHE`, or embatch's folder in the user's cache.

    Raises:
        OSError: neither is known.
    """
    base = os.environ.get(CACHE_VARIABLE)
    if base:
        return Path(base) / "models"
    try:
        return Path.home() / ".cache" / "embatch" / "models"
    except RuntimeError as error:
        raise OSError(f"no home folder to keep models in; set {CACHE_VARIABLE}") from error


def find(key: str) -> Path | None:
    """Return an entry that is there, whole."""
    folder = cache_root() / key
    return folder if folder.is_dir() else None


def stage(key: str, fill: Callable[[Path], None]) -> Path:
    """Return the entry `key`; the first process of this node that asks fills an empty folder, the others wait.

    Raises:
        OSError: the cache cannot be written, or `fill` failed; nothing is left behind then.
    """
    folder = cache_root() / key
    if folder.is_dir():
        return folder
    with _locked(folder):
        if folder.is_dir():
            return folder
        logger.info("staging %s", folder)
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir()
        try:
            fill(partial)
            _sync(partial)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an entry's lock; the kernel frees that of a killed process."""
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise OSError(f"cannot write to {str(folder.parent)!r} ({error.strerror}); set {CACHE_VARIABLE}") from error
    try:
        yield
    finally:
        lock.release()


def _sync(folder: Path) -> None:
    """Bring file contents to disk, so that no crash can leave a renamed folder of empty files."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
