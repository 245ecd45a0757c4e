"""The small frozen records that travel between layers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Format(StrEnum):
    """File formats a corpus may hold."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"


class DeadCode(StrEnum):
    """Why a row was set aside."""

    EMPTY = "EMPTY"
    """Null, empty or blank text, or a blank line: counted apart, never against the limit."""
    MISSING_TEXT = "MISSING_TEXT"
    """The record has no such column."""
    BAD_TYPE = "BAD_TYPE"
    """The text, prompt or id is not what its column must hold."""
    BAD_JSON = "BAD_JSON"
    """The line is not one JSON object, or repeats a key."""
    BAD_CSV = "BAD_CSV"
    """The record is malformed, or has not as many fields as there are columns."""
    BAD_UTF8 = "BAD_UTF8"
    """Bytes or lone surrogates that are not Unicode text."""
    BAD_VALUE = "BAD_VALUE"
    """A kept value does not fit the column's type."""
    TOO_LARGE = "TOO_LARGE"
    """More bytes than `input.max_text_bytes`."""
    TOO_LONG = "TOO_LONG"
    """More tokens than the model reads, with `text.long: reject`; or a prompt of its own that leaves no room."""
    BAD_PROMPT = "BAD_PROMPT"
    """The row's prompt is not in `encoder.prompt.vocabulary`."""
    BAD_VECTOR = "BAD_VECTOR"
    """The encoder returned a vector that is not finite or is zero."""
    WORKER_KILLED = "WORKER_KILLED"
    """A process that encodes the text ends, even where it encodes nothing else."""
    REFUSED = "REFUSED"
    """A hosted model's API refuses the text, for its length or its content."""
    SOURCE_CHANGED = "SOURCE_CHANGED"
    """The file differs from the plan and --skip-changed was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One input file, pinned.

    `path` is relative to the input; `etag` is the store's, or the modification time in
    nanoseconds on a local disk.
    """

    path: str
    size: int
    etag: str
    format: Format
    compression: str | None = None
    partitions: tuple[tuple[str, str | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Consecutive rows of one source file.

    `start` and `end` are byte offsets after decompression for lines and CSV; 0 for Parquet.
    """

    source: SourceFile
    first_row: int
    rows: int
    size_bytes: int
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.source.path}, which has no rows"
        return f"{self.source.path} rows {self.first_row} to {self.first_row + self.rows - 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The atom of work, retry and checkpoint: an ordered list of slices.

    Consecutive units with the same `group` are opened by one read task, because their file can
    only be read from its beginning.
    """

    number: int
    group: int
    slices: tuple[Slice, ...]

    @property
    def rows(self) -> int:
        """Rows in all slices."""
        return sum(piece.rows for piece in self.slices)

    @property
    def size_bytes(self) -> int:
        """Input bytes of all slices (uncompressed; an estimate for Parquet)."""
        return sum(piece.size_bytes for piece in self.slices)

    @property
    def pieces(self) -> str:
        """Its slices, for people."""
        return "; ".join(map(str, self.slices))

    def to_json(self) -> str:
        """Serialize for a row of the dataset."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Unit:
        """Read back what `to_json` wrote."""
        values = json.loads(text)
        return cls(number=values["number"], group=values["group"], slices=tuple(map(_slice, values["slices"])))


def _slice(values: dict[str, Any]) -> Slice:
    source = values["source"]
    partitions = tuple((name, value) for name, value in source["partitions"])
    pinned = SourceFile(**{**source, "format": Format(source["format"]), "partitions": partitions})
    return Slice(**{**values, "source": pinned})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A row that could not be embedded; `reason` never holds more than 200 characters of it."""

    slice_index: int
    row: int
    code: DeadCode
    reason: str


STARVED, BLOCKED = "idle for a payload", "idle for a commit"
"""Names in `Effort.seconds` of what a replica's device waited for before it encoded the unit."""
RATE_LIMIT = "rate limit"
"""Name there of what, within `encode`, was waited for a hosted model's rate limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What it took to make one unit: measured, so no part of the output, and known only to the run that made it.

    `batch_tokens` are tokens in batches of the device, which had room for `batch_room`; `lengths` counts the embedded
    rows by bin of `token_lengths.BOUNDS`.
    """

    seconds: dict[str, float]
    batch_tokens: int
    batch_room: int
    lengths: list[int]
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What one committed unit reports; all but `effort` can be read back from its shard.

    `clipped` counts numbers of vectors cut to the ends of their range, `scripts` rows by the script of their text.
    `calibration` is the digest of the one that the vectors were made with, None where they are float32.
    """

    unit: int
    key: str
    size_bytes: int
    sha256: str
    content_digest: str
    rows_in: int
    rows_ok: int
    tokens: int
    truncated: int
    chars: int
    chars_lost: int
    dead_by_code: dict[str, int] = field(default_factory=dict)
    dead_key: str | None = None
    dead_sha256: str | None = None
    clipped: int = 0
    scripts: dict[str, int] = field(default_factory=dict)
    calibration: str | None = None
    effort: Effort | None = None

    @property
    def rows_dead(self) -> int:
        """Rows set aside, whatever the code."""
        return sum(self.dead_by_code.values())

    def to_json(self) -> str:
        """Serialize for a row of the dataset."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Receipt:
        """Read back what `to_json` wrote."""
        values = json.loads(text)
        effort = values.pop("effort")
        return cls(effort=None if effort is None else Effort(**effort), **values)
