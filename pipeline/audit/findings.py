"""What an audit says: findings, each a plain sentence that names a key, unit or row, and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

MAX_FINDINGS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """The outcome of an audit; the output is as promised where `findings` is empty.

    `units`, `rows` (embedded ones) and `dead_by_code` count what was found, not what anyone stated;
    `content_digest` is recomputed and None unless every unit is there. After `MAX_FINDINGS` sentences one more
    says how many were left out.
    """

    output: str
    plan_id: str
    complete: bool
    trial: bool
    units: int
    rows: int
    dead_by_code: dict[str, int]
    content_digest: str | None
    findings: tuple[str, ...]
    seconds: float


class Findings:
    """Collects sentences, keeps the first ones and counts the rest."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._left_out = 0

    def add(self, *sentences: str) -> None:
        """Take findings."""
        self.extend(sentences)

    def extend(self, sentences: Iterable[str]) -> None:
        """Take findings in order."""
        for sentence in sentences:
            if len(self._kept) < MAX_FINDINGS:
                self._kept.append(sentence)
            else:
                self._left_out += 1

    def sentences(self) -> tuple[str, ...]:
        """Return what was kept, and how much was not."""
        more = [f"and {self._left_out} more findings"] if self._left_out else []
        return (*self._kept, *more)


class RowFaults:
    """Faults of single rows of one object: one sentence a kind, so that one fault cannot drown another."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._first: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, sentence: str) -> None:
        """Take a fault; the first of its kind is quoted, the others are counted."""
        self._first.setdefault(kind, sentence)
        self._counts[kind] += 1

    def sentences(self) -> list[str]:
        """Return one finding a kind."""
        return [
            f"{self._where}: {first}" + (f" (and {more} more rows)" if (more := self._counts[kind] - 1) else "")
            for kind, first in self._first.items()
        ]
