"""Small corpora that tests write, and where the project lies."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

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
