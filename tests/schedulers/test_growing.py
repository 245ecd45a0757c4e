"""Nights over one growing folder: each takes what is new, and a killed one is made up for before the next."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from samples import make_rows, write_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.ray]  # several runs, each with a Ray of its own


@pytest.fixture
def growing_job(tmp_path: Path) -> Path:
    job = tmp_path / "growing.yaml"
    job.write_text(
        f"name: growing-{{ds}}\ninput: {{uri: {tmp_path}/corpus}}\nencoder: {{model: 'hashing:16'}}\n"
        f"output: {{uri: '{tmp_path}/series/dt={{ds}}', series: '{tmp_path}/series', unit_rows: 16}}\n"
    )
    return job


def test_a_killed_night_is_made_up_for_before_the_next(growing_job, tmp_path, embatch):
    def night(day: int, **environment: str) -> int:
        done = embatch("run", str(growing_job), "--ds", f"2026-11-{day}", "--json", **environment)
        codes.append(done.returncode)
        return json.loads(done.stdout)["totals"]["rows_in"] if done.returncode == 0 else -1

    codes: list[int] = []
    write_jsonl(tmp_path / "corpus/1.jsonl", make_rows(0, 40))
    assert night(24) == 40
    write_jsonl(tmp_path / "corpus/2.jsonl", make_rows(100, 30))
    night(25, EMBATCH_FAILPOINTS="plan.before_head:SIGKILL")
    night(26)
    assert codes == [0, -signal.SIGKILL, 4]  # nobody knows what is left for the third before the second has its plan
    write_jsonl(tmp_path / "corpus/3.jsonl", make_rows(200, 20))
    assert night(25) == 50
    write_jsonl(tmp_path / "corpus/4.jsonl", make_rows(300, 10))
    assert night(26) == 10
    assert night(27) == 0
    checked = embatch("verify", f"{tmp_path}/series", "--json")
    assert checked.returncode == 0, checked.stderr
    outputs = json.loads(checked.stdout)["outputs"]
    assert [(name, found["rows"], found["complete"]) for name, found in outputs.items()] == [
        ("dt=2026-11-24", 40, True),
        ("dt=2026-11-25", 50, True),
        ("dt=2026-11-26", 10, True),
        ("dt=2026-11-27", 0, True),
    ]
