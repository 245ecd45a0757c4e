"""Receipts and units made up of what a test is about."""

from __future__ import annotations

from pipeline.records import Effort, Format, Receipt, Slice, SourceFile, Unit


def receipt(unit: int, seconds: dict[str, float], *, rows: int = 10, tokens: int = 90, **effort) -> Receipt:
    """What a unit reports that took so many seconds a stage."""
    values = {"batch_tokens": tokens, "batch_room": 100, "lengths": [], "host": "here", **effort}
    counted = {"rows_in": rows, "rows_ok": rows, "tokens": tokens, "truncated": 0, "chars": 0, "chars_lost": 0}
    texts = {"key": "", "sha256": "", "content_digest": ""}
    return Receipt(unit=unit, size_bytes=0, **texts, **counted, effort=Effort(seconds=seconds, **values))


def unit(number: int, files: int = 1) -> Unit:
    """A unit of ten rows of each of some files."""
    sources = [SourceFile(path=f"{number}-{name}", size=1, etag="", format=Format.JSONL) for name in range(files)]
    slices = tuple(Slice(source=source, first_row=0, rows=10, size_bytes=1) for source in sources)
    return Unit(number=number, group=number, slices=slices)
