"""Checks of this machine alone: versions, room on disks, shared memory, open files. They read and write nothing."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipeline.doctor.finding import Finding, doubt, failure, well
from pipeline.encoders.files.staging import CACHE_VARIABLE, cache_root
from pipeline.exceptions import ConfigError, StorageError
from pipeline.ray_data.session import OPEN_FILES, require_open_files

SHOWN = ("ray", "torch", "transformers")
"""Others get a line only where something is wrong."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written
LITTLE_BYTES, TOO_LITTLE_BYTES = 5 << 30, 256 << 20
FULL = 0.95
"""From this share on Ray moves nothing to a disk."""


def versions(package: str = "embatch") -> Iterator[Finding]:
    """Compare Python and the packages embatch asks for with what is installed."""
    asked = metadata.metadata(package)["Requires-Python"]
    yield _version("python", platform.python_version(), SpecifierSet(asked), f"install Python {asked}")
    for requirement in map(Requirement, metadata.requires(package) or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(
            requirement.name,
            _installed(requirement.name),
            requirement.specifier,
            f"pip install '{requirement.name}{requirement.specifier}', or install from requirements.lock",
        )
        if requirement.name in SHOWN or found.level != "ok":
            yield found


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _version(name: str, installed: str | None, asked: SpecifierSet, remedy: str) -> Finding:
    if installed is None:
        return failure(name, ConfigError(name, f"is not installed; {asked} is asked for"), remedy)
    if not asked.contains(installed, prereleases=True):
        return failure(name, ConfigError(name, f"version {installed} is installed; {asked} is asked for"), remedy)
    return well(name, f"{installed} ({asked})")


def disks() -> Iterator[Finding]:
    """Look at the room for Ray's session and spilled payloads, and for models."""
    ray = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    yield disk("temporary files", ray, "free some space, or set RAY_TMPDIR to a folder on another disk")
    try:
        models = cache_root()
    except OSError as error:
        yield failure("model cache", ConfigError(CACHE_VARIABLE, str(error)), f"set {CACHE_VARIABLE}")
        return
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface")
    yield disk("model cache", models, f"free some space, or set {CACHE_VARIABLE} to a folder on another disk")
    yield disk("hub cache", hub, "free some space, or set HF_HOME to a folder on another disk")


def disk(name: str, folder: Path, remedy: str) -> Finding:
    """Look at the room where a folder is or would be."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    usage = shutil.disk_usage(existing)
    full = 1 - usage.free / usage.total if usage.total else 1.0
    message = f"{_gib(usage.free)} free at {str(folder)!r}, {full:.0%} full"
    if usage.free < TOO_LITTLE_BYTES:
        return failure(name, StorageError(str(folder), message), remedy)
    if usage.free < LITTLE_BYTES or full >= FULL:
        return doubt(name, message, remedy)
    return well(name, message)


def shared_memory(needed_bytes: int, folder: Path = SHARED_MEMORY) -> Finding:
    """Look at whether Ray's object store fits into shared memory."""
    name = "object store"
    remedy = (
        f"free {str(folder)!r}, or make it larger: docker run --shm-size={needed_bytes // 2**20}m, in Kubernetes an "
        "emptyDir with medium: Memory"
    )
    if not folder.is_dir():
        return doubt(name, f"no {str(folder)!r}: Ray keeps objects in files, which is slower", remedy)
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        message = f"{_gib(free)} free in {str(folder)!r} of {_gib(needed_bytes)}: Ray keeps objects in files, slower"
        return doubt(name, message, remedy)
    return well(name, f"{_gib(free)} free in {str(folder)!r}, {_gib(needed_bytes)} are used")


def open_files() -> Finding:
    """Look at how many files a process may have open."""
    name = "open files"
    try:
        require_open_files()
    except ConfigError as error:
        return failure(name, error, "raise the hard limit: LimitNOFILE= of systemd, docker run --ulimit nofile=65536")
    return well(name, f"a process may have {OPEN_FILES:,} or more")


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
