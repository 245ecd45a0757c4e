"""The bytes of a line or CSV file as they are after decompression: plain, gzip or zstd."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pipeline.corpus.files import CorpusFiles, PinnedFile
from pipeline.records import SourceFile

BLOCK_BYTES = 4 << 20
BOM = b"\xef\xbb\xbf"
"""Some programs put it before UTF-8 text; it is no part of it."""
_DECODE_ERRORS = (OSError, EOFError, zlib.error)


@contextmanager
def decompressed(files: CorpusFiles, source: SourceFile) -> Iterator[tuple[io.BufferedIOBase, PinnedFile]]:
    """Open a source file as a stream that can seek forward.

    Raises:
        SourceChangedError: it is not the one that was planned.
        SourceReadError: its bytes cannot be decompressed.
    """
    with files.open(source) as pinned:
        try:
            yield _stream(pinned.file, source.compression), pinned
        except _DECODE_ERRORS as error:
            raise pinned.blame(f"damaged {source.compression or 'file'}: {error}") from error


def _stream(file: Any, compression: str | None) -> io.BufferedIOBase:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=file)
    if compression == "zstd":
        return io.BufferedReader(_Zstandard(file), BLOCK_BYTES)
    return io.BufferedReader(file, BLOCK_BYTES)  # fsspec files are raw enough


class _Zstandard(io.RawIOBase):
    """Decompresses a file and seeks as gzip does: forward by reading, backward from the beginning."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._streams: list[pa.CompressedInputStream] = []  # one that is let go closes the file
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(0)
        self._streams.append(pa.CompressedInputStream(pa.PythonFile(self._file, "r"), "zstd"))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence != io.SEEK_SET:
            msg = "can only seek from the beginning"
            raise OSError(msg)
        if offset < self._position:
            self._rewind()
        while self._position < offset:
            if not self.readinto(memoryview(bytearray(min(BLOCK_BYTES, offset - self._position)))):
                break
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._streams[-1].read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
