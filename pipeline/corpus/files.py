"""Find the source files below a URI and open them pinned to what the plan saw."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import IO, Any
from urllib.parse import unquote

from pipeline.corpus.heard import HeardFile
from pipeline.exceptions import (
    ConfigError,
    SourceChangedError,
    SourceError,
    SourceMissingError,
    SourceReadError,
    TransientStorageError,
)
from pipeline.records import Format, SourceFile
from pipeline.storage import client_errors, open_filesystem, split_uri
from pipeline.storage.base import may_hold
from pipeline.wording import counted

_SUFFIXES = {
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
}
_COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_PARTITION = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Source files in order of their path, and what was passed over: other formats, links to folders, pipes."""

    sources: list[SourceFile]
    ignored: list[str]

    @property
    def left_out(self) -> str | None:
        """Say what was passed over; None where nothing was."""
        if not self.ignored:
            return None
        names = ", ".join(map(repr, self.ignored[:3])) + (", …" if len(self.ignored) > 3 else "")
        return f"{len(self.ignored):,} left out, for another format or as a link to a folder: {names}"


class CorpusFiles:
    """The files of one corpus. Cheap to build; each process builds its own."""

    def __init__(self, uri: str, alive: Callable[[], None] | None = None) -> None:
        """`alive` is called whenever bytes of a file were read, also of what is only passed over."""
        self.uri, self._alive = uri, alive
        self._fs, self._pattern = open_filesystem(uri)
        self._is_local = split_uri(uri)[0] == "file"

    @cached_property
    def _base(self) -> str:
        """The folder that source paths are relative to."""
        if self._is_glob:
            return re.split(r"[*?\[]", self._pattern)[0].rpartition("/")[0]
        return self._pattern.rpartition("/")[0] if self._is_file else self._pattern

    @cached_property
    def _is_glob(self) -> bool:
        # a name may hold these characters: what exists as it is written is no pattern
        return any(character in self._pattern for character in "*?[") and not self._fs.exists(self._pattern)

    @cached_property
    def _is_file(self) -> bool:
        return bool(self._fs.isfile(self._pattern))

    def discover(self, file_format: str = "auto") -> Listing:
        """List the corpus as the store has it now.

        Raises:
            SourceMissingError: nothing is there, or no file has a format embatch reads.
            SourceReadError: it, or a folder below it, cannot be listed.
            ConfigError: it is no pattern.
        """
        sources, ignored, hidden = [], [], 0
        for path, info in sorted(self._find().items()):
            relative = path.removeprefix(self._base).removeprefix("/")  # one: "a//b" is a name of its own on S3
            if info["type"] == "directory":
                continue
            if _hidden(relative) and not self._is_file:
                hidden += 1
                continue
            kind = _kind(relative, file_format)
            source = self._source(relative, info, *kind) if kind else None
            if source is None:
                ignored.append(relative)
            else:
                sources.append(source)
        if not sources:
            raise SourceMissingError(self.uri, self._why_nothing(len(ignored), hidden))
        return Listing(sources=sources, ignored=ignored)

    def _source(self, path: str, info: dict[str, Any], found: Format, compression: str | None) -> SourceFile | None:
        """Pin a listed file; None for what only looks like one (a pipe, a link to a folder)."""
        try:
            path.encode()
            if info.get("islink"):
                info = self._fs.info(info["name"])
            if info["type"] != "file":
                return None
            size, etag = _pin_of(info)
        except UnicodeEncodeError:
            raise SourceReadError(path, "its name is not Unicode text; rename it") from None
        except OSError as error:
            raise SourceReadError(path, str(error)) from error
        return SourceFile(
            path=path, size=size, etag=etag, format=found, compression=compression, partitions=_partitions(path)
        )

    def pin(self, path: str) -> tuple[int, str] | None:
        """Return size and ETag of a source file as it is now, or None where it is gone.

        Raises:
            SourceReadError: the store or disk fails.
        """
        try:
            return _pin_of(self._fs.info(self._absolute(path)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except client_errors(self.uri) as error:
            raise self._failure(path, error) from error

    @contextlib.contextmanager
    def open(self, source: SourceFile) -> Iterator[PinnedFile]:
        """Open a source file that is still the pinned one; readers check again before they hand rows out.

        Raises:
            SourceChangedError: its size or ETag differs from `source`, or it is gone.
            SourceReadError: the store or disk fails.
        """
        try:
            with self._fs.open(self._absolute(source.path), "rb") as file:
                heard: Any = HeardFile(file, self._alive) if self._alive else file
                pinned = PinnedFile(self, source, heard)
                pinned.check()
                yield pinned
        except client_errors(self.uri) as error:
            failure = self._failure(source.path, error)
            raise self.blame(source, failure.reason) if isinstance(failure, SourceReadError) else failure from error

    def blame(self, source: SourceFile, reason: str) -> SourceError:
        """Make the error for a source file that cannot be read, which may be so because it was changed meanwhile."""
        change = describe_change(source, self.pin(source.path))
        return SourceReadError(source.path, reason) if change is None else SourceChangedError([change])

    def _find(self) -> dict[str, dict[str, Any]]:
        try:
            if self._is_glob:
                return {**self._fs.glob(self._pattern, detail=True), **self._links_on_the_way()}
            if self._is_file:
                return {self._pattern: self._fs.info(self._pattern)}
            return dict(self._fs.find(self._pattern, detail=True))
        except FileNotFoundError as error:
            if self._fs.exists(self._base):
                raise SourceReadError(self.uri, f"it changed while it was listed: {error}") from error
            return {}
        except ValueError as error:  # a pattern that is none, an endpoint that is no URL
            raise ConfigError("input.uri", f"{self.uri!r}: {error}") from None
        except client_errors(self.uri) as error:
            if self._is_local:
                raise SourceReadError(self.uri, f"it cannot be listed: {error}") from error
            raise self._failure(self.uri, error) from error

    def _links_on_the_way(self) -> dict[str, dict[str, Any]]:
        """Return links to local folders that may hold what the pattern names: fsspec does not follow them."""
        if not self._is_local:
            return {}
        found = self._fs.find(self._base or "/", within=self._pattern, detail=True).items()
        links = {path: info for path, info in found if info["islink"] and may_hold(path, self._pattern)}
        return {path: info for path, info in links.items() if os.path.isdir(path)}  # noqa: PTH112

    def _failure(self, path: str, error: Exception) -> SourceReadError | TransientStorageError:
        from pipeline.storage.failures import source_failure

        return source_failure(path, error)

    def _why_nothing(self, ignored: int, hidden: int) -> str:
        if ignored:
            formats = ", ".join(_SUFFIXES)
            found = f"{counted(ignored, 'file')}, none ending in {formats}"
            return f"{found}; write others as Parquet, or set input.format where the names do not tell"
        if hidden:
            return f"{counted(hidden, 'file')}, all hidden (a part of their path starts with . or _)"
        if self._has_no_bucket():
            return f"no such bucket: {self._pattern.partition('/')[0]!r}"
        if self._is_glob:
            return "the pattern matches no file"
        return "the folder holds no files" if self._fs.exists(self._pattern) else "no such file or folder"

    def _has_no_bucket(self) -> bool:
        if self._is_local:
            return False
        from pipeline.storage.failures import error_code

        try:
            self._fs.info(self._base)
        except client_errors(self.uri) as error:
            return error_code(error)[0] == "NoSuchBucket"
        return False

    def _absolute(self, path: str) -> str:
        return f"{self._base}/{path}" if self._base or self._pattern.startswith("/") else path


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
            now: tuple[int, str] | None = _pin_of(details)
        else:
            now = self._files.pin(self._source.path)
        change = describe_change(self._source, now)
        if change is not None:
            raise SourceChangedError([change])

    def blame(self, reason: str) -> SourceError:
        """See `CorpusFiles.blame`."""
        return self._files.blame(self._source, reason)


def describe_change(planned: SourceFile, now: tuple[int, str] | None) -> str | None:
    """Say in one line how a file differs from its pin; None where it does not."""
    if now is None:
        return f"{planned.path}: is gone"
    if planned.size != now[0]:
        return f"{planned.path}: size {planned.size} -> {now[0]}"
    if planned.etag != now[1]:
        return f"{planned.path}: rewritten ({planned.etag} -> {now[1]})"
    return None


def _kind(path: str, file_format: str) -> tuple[Format, str | None] | None:
    """Return format and compression by the name of a file; None where it is not one embatch reads."""
    stem, suffix = os.path.splitext(path)  # noqa: PTH122 - also object keys
    compression = _COMPRESSIONS.get(suffix.lower())
    if compression:
        suffix = os.path.splitext(stem)[1]  # noqa: PTH122
    found = _SUFFIXES.get(suffix.lower()) if file_format == "auto" else Format(file_format)
    if found is None or (found is Format.PARQUET and compression):
        return None
    return found, compression


def _pin_of(info: dict[str, Any]) -> tuple[int, str]:
    return int(info["size"] or 0), _etag(info)


def _etag(info: dict[str, Any]) -> str:
    """Return what changes when a file does: the store's ETag, or the modification time."""
    for key in ("ETag", "etag", "md5Hash", "content_hash", "blob_id"):
        if info.get(key):
            return str(info[key]).strip('"')
    if "mtime" in info and "ino" in info:
        # fsspec rounds mtime to a float; the file system knows nanoseconds
        return str(os.stat(info["name"]).st_mtime_ns)  # noqa: PTH116
    times = (info.get(key) for key in ("mtime", "modified", "created", "LastModified"))
    latest = next((time for time in times if time), "")
    # listings and single look-ups may give the same moment in different forms
    return str(latest.timestamp() if isinstance(latest, datetime) else latest)


def _hidden(path: str) -> bool:
    """Leave out what writers of the field hide: `_SUCCESS`, `.crc`, `_temporary/`; keep `_dt=…`."""
    return any(part[0] in "._" and "=" not in part for part in path.split("/") if part)


def _partitions(path: str) -> tuple[tuple[str, str | None], ...]:
    matches = (_PARTITION.fullmatch(part) for part in path.split("/")[:-1])
    return tuple(
        (match[1], None if match[2] == _HIVE_NULL else unquote(match[2])) for match in matches if match is not None
    )
