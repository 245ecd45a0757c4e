"""The standard streams of a command: closed ones are opened, and what cannot be said ends no work."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import Any, TextIO, cast

from pipeline.exceptions import StorageError

UNENCODABLE = "backslashreplace"
"""What is no Unicode, as in the names of some files, is shown as Python shows it on stderr."""


def secure() -> None:
    """Open streams that were closed, and let no message that cannot be written end what it tells of.

    Behind a closed stream's number the next file would be opened, a shard's or a plan's, and what any library prints
    would be written into it.
    """
    closed = [(number, name) for number, name in enumerate(("stdin", "stdout", "stderr")) if getattr(sys, name) is None]
    for number, _ in closed:
        _occupy(number)
    for number, name in closed:
        setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors=UNENCODABLE)  # results are UTF-8 in any locale
    sys.stderr = cast("TextIO", Messages(sys.stderr))
    sys.stdout = cast("TextIO", Results(sys.stdout))


def _occupy(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, number)
        if null != number:
            os.close(null)


class Messages:
    """A stream whose errors pass: a full disk or a reader that is gone loses a message, not the run."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        pass


class Results(Messages):
    """A stream that results go to: nobody misses them where the reader is gone, else their loss is an error, once."""

    def _failed(self, error: OSError) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())  # Python tries again when it ends
        os.close(null)
        if not isinstance(error, BrokenPipeError):
            raise StorageError("standard output", error.strerror or str(error)) from error
