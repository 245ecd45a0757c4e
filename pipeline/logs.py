"""Log lines for machines: one JSON object a line, with the run it belongs to and, where it is known, the unit."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

_UNIT: ContextVar[int | None] = ContextVar("unit", default=None)
_OURS = ("pipeline", "jobs")
"""Packages whose notices are shown too; of libraries only warnings."""


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger` and `message`, then what was bound, the unit, and the record's own `facts`."""

    def __init__(self) -> None:
        super().__init__()
        self._bound: dict[str, str] = {}

    def bind(self, facts: Mapping[str, str]) -> None:
        """Put these into every line from now on."""
        self._bound |= facts

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as JSON in ASCII, which no terminal or locale can break."""
        unit = _UNIT.get()
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._bound,
            **({} if unit is None else {"unit": unit}),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def to_stderr() -> JsonFormatter:
    """Have this process log to stderr as JSON objects, Python's own warnings too; returns what writes them."""
    formatter = JsonFormatter()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    for package in _OURS:
        logging.getLogger(package).setLevel(logging.INFO)
    return formatter


def installed() -> JsonFormatter | None:
    """Return what writes this process's log lines as JSON; None where they are not."""
    formatters = (handler.formatter for handler in logging.getLogger().handlers)
    return next((found for found in formatters if isinstance(found, JsonFormatter)), None)


def follow(facts: Mapping[str, str] | None) -> None:
    """Have a worker log as its driver does, to the file that Ray keeps of it; None: as text."""
    explain_retries()
    if facts is not None:
        (installed() or to_stderr()).bind(facts)


def explain_retries() -> None:
    """Have the notices that stamina gives of another try say in their text why and when."""
    logging.getLogger("stamina").addFilter(_explained)


def _explained(record: logging.LogRecord) -> bool:
    cause = getattr(record, "stamina.caused_by", None)
    if cause is not None:
        record.msg, record.args = "trying again in %.1f s after %s", (getattr(record, "stamina.wait_for"), cause)
    return True


@contextmanager
def of_unit(number: int) -> Iterator[None]:
    """Hold while this thread works on a unit."""
    token = _UNIT.set(number)
    try:
        yield
    finally:
        _UNIT.reset(token)
