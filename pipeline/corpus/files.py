"""Find the source files below a URI and open them pinned to what the plan saw."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any
from urllib.parse import unquote

from pipeline.exceptions import SourceChangedError, SourceMissingError, SourceReadError
from pipeline.records import Format, SourceFile
from pipeline.storage import open_filesystem

_SUFFIXES = {
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
}
_COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_PARTITION = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Source files in order of their path, and the paths that were passed over."""

    sources: list[SourceFile]
    ignored: list[str]


class CorpusFiles:
    """The files of one corpus. Cheap to build; each process builds its own."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._fs, self._pattern = open_filesystem(uri)

    @cached_property
    def _base(self) -> str:
        """The folder that source paths are relative to."""
        if self._is_glob:
            return re.split(r"[*?\[]", self._pattern)[0].rpartition("/")[0]
        return self._pattern.rpartition("/")[0] if self._fs.isfile(self._pattern) else self._pattern

    @property
    def _is_glob(self) -> bool:
        return any(character in self._pattern for character in "*?[")

    def discover(self, file_format: str = "auto") -> Listing:
        """List the corpus as the store has it now.

        Raises:
            SourceMissingError: nothing is there, or no file has a format embatch reads.
            SourceReadError: it cannot be listed.
        """
        sources, ignored = [], []
        for path, info in sorted(self._find().items()):
            relative = path.removeprefix(self._base).lstrip("/")
            if _hidden(relative) or info["type"] == "directory":
                continue
            source = _source(relative, info, file_format)
            if source is None:
                ignored.append(relative)
            else:
                sources.append(source)
        if not sources:
            raise SourceMissingError(self.uri, self._why_nothing(len(ignored)))
        return Listing(sources=sources, ignored=ignored)

    def pin(self, path: str) -> tuple[int, str] | None:
        """Return size and ETag of a source file as it is now, or None where it is gone."""
        try:
            info = self._fs.info(self._absolute(path))
        except FileNotFoundError:
            return None
        return int(info["size"]), _etag(info)

    @contextlib.contextmanager
    def open(self, source: SourceFile) -> Iterator[PinnedFile]:
        """Open a source file that is still the pinned one; readers check again before they hand rows out.

        Raises:
            SourceChangedError: its size or ETag differs from `source`, or it is gone.
            SourceReadError: the store or disk fails.
        """
        try:
            with self._fs.open(self._absolute(source.path), "rb") as file:
                pinned = PinnedFile(self, source, file)
                pinned.check()
                yield pinned
        except FileNotFoundError:
            raise SourceChangedError([f"{source.path}: is gone"]) from None
        except OSError as error:
            # s3fs reports an object that was replaced while open as an error of its own
            _compare(source, self.pin(source.path))
            raise SourceReadError(source.path, str(error)) from error

    def _find(self) -> dict[str, dict[str, Any]]:
        try:
            if self._is_glob:
                return dict(self._fs.glob(self._pattern, detail=True))
            if self._fs.isfile(self._pattern):
                return {self._pattern: self._fs.info(self._pattern)}
            return dict(self._fs.find(self._pattern, detail=True))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SourceReadError(self.uri, str(error)) from error

    def _why_nothing(self, ignored: int) -> str:
        if ignored:
            formats = ", ".join(_SUFFIXES)
            return f"{ignored} files, none ending in {formats}; set input.format where the names do not tell"
        if self._is_glob:
            return "the pattern matches no file"
        return "the folder holds no files" if self._fs.exists(self._pattern) else "no such file or folder"

    def _absolute(self, path: str) -> str:
        return f"{self._base}/{path}" if self._base else path


class PinnedFile:
    """An open source file whose bytes must all be of the version the plan saw."""

    def __init__(self, files: CorpusFiles, source: SourceFile, file: IO[bytes]) -> None:
        self.file = file
        self._files, self._source = files, source

    def check(self) -> None:
        """Compare with the pin; rows read before this call are then known to be the planned ones.

        Raises:
            SourceChangedError: the file was rewritten or removed.
        """
        details = getattr(self.file, "details", None)
        if isinstance(details, dict) and details.get("ETag"):
            # s3fs sends this ETag as a condition with every range it gets
            _compare(self._source, (int(details["size"]), _etag(details)))
        else:
            _compare(self._source, self._files.pin(self._source.path))


def describe_change(planned: SourceFile, now: tuple[int, str] | None) -> str | None:
    """Say in one line how a file differs from its pin; None where it does not."""
    if now is None:
        return f"{planned.path}: is gone"
    if planned.size != now[0]:
        return f"{planned.path}: size {planned.size} -> {now[0]}"
    if planned.etag != now[1]:
        return f"{planned.path}: rewritten ({planned.etag} -> {now[1]})"
    return None


def _compare(source: SourceFile, now: tuple[int, str] | None) -> None:
    change = describe_change(source, now)
    if change is not None:
        raise SourceChangedError([change])


def _source(path: str, info: dict[str, Any], file_format: str) -> SourceFile | None:
    stem, suffix = os.path.splitext(path)  # noqa: PTH122 - also object keys
    compression = _COMPRESSIONS.get(suffix.lower())
    if compression:
        suffix = os.path.splitext(stem)[1]  # noqa: PTH122
    found = _SUFFIXES.get(suffix.lower()) if file_format == "auto" else Format(file_format)
    if found is None or (found is Format.PARQUET and compression):
        return None
    return SourceFile(
        path=path,
        size=int(info["size"]),
        etag=_etag(info),
        format=found,
        compression=compression,
        partitions=_partitions(path),
    )


def _etag(info: dict[str, Any]) -> str:
    """Return what changes when a file does: the store's ETag, or the modification time."""
    for key in ("ETag", "etag", "md5Hash", "content_hash"):
        if info.get(key):
            return str(info[key]).strip('"')
    if "mtime" in info and "ino" in info:
        # fsspec rounds mtime to a float; the file system knows nanoseconds
        return str(os.stat(info["name"]).st_mtime_ns)  # noqa: PTH116
    return str(info.get("mtime") or info.get("modified") or info.get("created") or info.get("LastModified") or "")


def _hidden(path: str) -> bool:
    """Leave out what writers of the field hide: `_SUCCESS`, `.crc`, `_temporary/`; keep `_dt=…`."""
    return any(part[0] in "._" and "=" not in part for part in path.split("/") if part)


def _partitions(path: str) -> tuple[tuple[str, str | None], ...]:
    matches = (_PARTITION.fullmatch(part) for part in path.split("/")[:-1])
    return tuple(
        (match[1], None if match[2] == _HIVE_NULL else unquote(match[2])) for match in matches if match is not None
    )
