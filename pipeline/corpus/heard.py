"""A file that tells of each read: a reader may be at one for long before it has a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class HeardFile:
    """Another file in all but that `alive` is called whenever bytes were read."""

    def __init__(self, file: Any, alive: Callable[[], None]) -> None:
        self._file, self._alive = file, alive

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Read as the file does."""
        data: bytes = self._file.read(size)
        self._alive()
        return data

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer as the file does."""
        count: int = self._file.readinto(buffer)
        self._alive()
        return count
