"""A model behind an fsspec URI: what it holds, and its copy on this node.

The copy is named by a digest of the listing, sizes and ETags included. A plan records the digest, so that
a node that has the copy asks the store nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import aiohttp
import stamina
from botocore.exceptions import BotoCoreError

from pipeline.encoders.files import layout, staging
from pipeline.exceptions import ModelError
from pipeline.storage import open_filesystem

ATTEMPTS = 4
_CLIENT_ERRORS = (OSError, BotoCoreError, aiohttp.ClientError, asyncio.TimeoutError)
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "content_hash", "LastModified", "last_modified", "mtime", "created")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file of a listing; `version` changes when its bytes do."""

    name: str
    size: int
    version: str


def copy_here(
    uri: str, *, pickles: bool, planned: str | None = None, check: Callable[[Path], object] | None = None
) -> tuple[Path, str]:
    """Copy a model's files to this node's cache unless they are there.

    Args:
        uri: where the model is.
        pickles: also take weights that are published as pickles only.
        planned: the digest of the listing that a plan was made from.
        check: sees the folder before any weights come, and raises where they need not.

    Returns:
        The folder on this node, and the digest.

    Raises:
        ModelError: there is no model, it cannot be read, or it is not the planned one.
    """
    try:
        if planned is not None and (present := staging.find(planned)) is not None:
            return present, planned
        folder = _UriFolder(uri)
        files = folder.listing(pickles=pickles)
        digest = _digest(uri, files)
        if planned not in (None, digest):
            raise ModelError(uri, "its files changed since the plan (other sizes or ETags)")
        return staging.stage(digest, lambda target: folder.download(files, target, check, pickles=pickles)), digest
    except ValueError as error:
        raise ModelError(uri, str(error)) from error
    except _CLIENT_ERRORS as error:
        raise ModelError(uri, _reason(error)) from error


class _UriFolder:
    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._fs, self._root = open_filesystem(uri)

    def listing(self, *, pickles: bool) -> list[RemoteFile]:
        """List the files that count: one request a folder of the model, and none below them."""
        found = self._list("")
        if not found:
            raise ModelError(self._uri, "nothing is there")
        modules = self._fs.cat_file(self._path(layout.MODULES)) if layout.MODULES in found else None
        layout.refuse_foreign(found, modules)
        folders = layout.module_folders(modules)
        for folder in folders[1:]:
            found |= self._list(folder)
        names = layout.files_that_count(found, folders, pickles=pickles)
        return [self._describe(name, found[name]) for name in names]

    def download(
        self, files: list[RemoteFile], target: Path, check: Callable[[Path], object] | None, *, pickles: bool
    ) -> None:
        """Copy files in small pieces, weights last and after the check; the listing must be the same afterwards."""
        for file in sorted(files, key=lambda file: layout.is_weights(file.name)):
            if check is not None and layout.is_weights(file.name):
                check(target)
                check = None
            local = target / file.name
            local.parent.mkdir(parents=True, exist_ok=True)
            for attempt in stamina.retry_context(on=_may_pass, attempts=ATTEMPTS, timeout=None, wait_max=10.0):
                with attempt:
                    self._get(file, local)
        if self.listing(pickles=pickles) != files:
            raise ModelError(self._uri, "its files changed while they were copied; run again")

    def _get(self, file: RemoteFile, local: Path) -> None:
        self._fs.get_file(self._path(file.name), str(local))
        if local.stat().st_size != file.size:
            raise OSError(f"{file.name} came with {local.stat().st_size} of {file.size} bytes")

    def _list(self, folder: str) -> dict[str, dict[str, Any]]:
        try:
            entries = self._fs.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return {}
        files = [entry for entry in entries if entry["type"] == "file"]
        return {(PurePosixPath(folder) / PurePosixPath(entry["name"]).name).as_posix(): entry for entry in files}

    def _describe(self, name: str, info: dict[str, Any]) -> RemoteFile:
        version = next((str(info[key]).strip('"') for key in _VERSION_KEYS if info.get(key)), None)
        if version is None:
            raise ModelError(self._uri, "its store tells neither ETags nor times; copy the model to a folder first")
        return RemoteFile(name=name, size=int(info["size"]), version=version)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def _may_pass(error: Exception) -> bool:
    return isinstance(error, _CLIENT_ERRORS) and not isinstance(error, FileNotFoundError | PermissionError)


def _digest(uri: str, files: list[RemoteFile]) -> str:
    text = json.dumps([uri.rstrip("/"), [astuple(file) for file in files]])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"permission denied: {error}"
    return f"cannot be read: {type(error).__name__}: {error}"
