"""A job that runs once a day, over a corpus with a folder a day."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from samples import make_rows, write_jsonl


@pytest.fixture
def add_day(tmp_path: Path) -> Callable[[str], None]:
    """Put ten rows of a day into the corpus."""

    def add(ds: str) -> None:
        write_jsonl(tmp_path / f"corpus/dt={ds}/a.jsonl", make_rows(0, 10))

    return add


@pytest.fixture
def daily_job(tmp_path: Path) -> Path:
    """The job file, with a place for the day; its outputs are `out/DAY` beside it."""
    path = tmp_path / "daily.yaml"
    job = {
        "name": "daily-{ds}",
        "input": {"uri": f"{tmp_path}/corpus/dt={{ds}}/"},
        "encoder": {"model": "hashing:8"},
        "output": {"uri": f"{tmp_path}/out/{{ds}}", "unit_rows": 5},
        "cluster": {"replicas": 1, "device": "cpu"},
    }
    path.write_text(yaml.safe_dump(job))
    return path
