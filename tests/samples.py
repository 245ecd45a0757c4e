"""Small corpora that tests write, and where the project lies."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
Rows = list[dict[str, Any]]


def write_jsonl(path: Path, rows: Rows) -> None:
    """Write JSON Lines, gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def make_rows(first: int, count: int) -> Rows:
    """Rows with an id, a text of 3 to 12 words and a number to keep."""
    return [
        {"id": f"row-{number}", "text": f"row {number} " + "word " * (number % 10 + 1), "year": 2000 + number % 20}
        for number in range(first, first + count)
    ]


def write_corpus(folder: Path) -> Path:
    """Three files of 100 rows each: Parquet, JSON Lines, and JSON Lines in gzip."""
    write_jsonl(folder / "a.jsonl", make_rows(0, 100))
    write_jsonl(folder / "b.jsonl.gz", make_rows(100, 100))
    pq.write_table(pa.Table.from_pylist(make_rows(200, 100)), folder / "c.parquet")
    return folder


def job_over(corpus: Path, output: Path) -> dict[str, Any]:
    """A job over that corpus with the hashing encoder, 12 units."""
    return {
        "input": {"uri": str(corpus), "keep": ["year"]},
        "encoder": {"model": "hashing:16"},
        "output": {"uri": str(output), "unit_rows": 25},
    }
