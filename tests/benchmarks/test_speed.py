"""The benchmark itself: its texts, its page, and a smoke run of everything; nothing is asserted about speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.speed import contenders, lineup, models, table
from benchmarks.speed.__main__ import keep
from benchmarks.speed.mixes import Mixes
from benchmarks.speed.worker import share
from samples import ROOT

CORPUS = ROOT / "jobs/demo/corpus"


@pytest.fixture(scope="module")
def mixes():
    return Mixes(CORPUS)


@pytest.fixture(scope="module")
def counter():
    return models.Counter(models.find("minilm", Path()))


@pytest.mark.model
def test_long_texts_fill_the_limit_and_mixed_ones_vary(mixes, counter, tmp_path):
    long = mixes.cell("minilm", "long", counter, 5000, tmp_path)
    mixed = mixes.cell("minilm", "mixed", counter, 5000, tmp_path)
    lengths = counter.lengths(json.loads(mixed.path.read_text()))
    assert long.tokens == 256 * long.texts >= 5000
    assert lengths.min() < 40
    assert 200 < lengths.max() <= 256
    assert np.ptp(np.sort(lengths)[:32]) < 8  # as in a large corpus, a batch of 32 has hardly any padding
    assert mixed.tokens == lengths.sum()


@pytest.mark.model
def test_mixes_are_the_same_every_time(mixes, counter):
    again = Mixes(CORPUS)
    for mix in ("short", "mixed", "long"):
        assert mixes._texts(mix, 256, 2) == again._texts(mix, 256, 2)


@pytest.mark.model
def test_flops_count_scores_at_each_texts_own_length(counter):
    lengths = np.array([10, 200])
    products = 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert counter.flops(lengths) == 210 * products + 4 * 384 * 6 * (10**2 + 200**2)


def test_shares_hold_every_text_once_and_are_alike_in_length():
    texts = ["x" * (number * 37 % 101) for number in range(100)]
    shares = [share(texts, part, 3) for part in range(3)]
    assert sorted(text for part in shares for text in part) == sorted(texts)
    sizes = [sum(map(len, part)) for part in shares]
    assert max(sizes) - min(sizes) <= 101


def row(label: str, seconds: list[float], failed: str | None = None, **values: object) -> dict[str, object]:
    turns = [{"encoding": each, "whole": None, "startup": None, "rate": None} for each in seconds]
    cell = {"model": "minilm", "mix": "short", "texts": 10, "tokens": 1000, "flops": 10**9, "dtype": "float32"}
    checked = {"cosine": 1.0, "difference": 1e-7}
    return {**cell, **checked, "label": label, "settings": "as is", "turns": turns, "failed": failed, **values}


def test_page_shows_medians_ratios_and_the_reason_of_a_failure():
    rows = [
        row("embatch encoder, float32", [1.0, 3.0, 2.0]),
        row(contenders.REFERENCE, [8.0, 4.0, 2.0]),
        row("OpenVINO, float32", [], failed="not installed: no .venv-bench/bin/python"),
    ]
    machine = {"cpu": "a", "cores": 2, "flags": [], "memory_gib": 1, "system": "b", "load_before": 0.0}
    machine |= {"versions": {}, "commit": "c"}
    found = {
        "date": "d",
        "command": "e",
        "seconds": 1,
        "rounds": 3,
        "quick": False,
        "kept": [],
        "peak": {"float32": 1e9},
    }
    page = table.page({**found, "machine": machine, "rows": rows})
    assert "| embatch encoder, float32 | 500 (333 to 1,000) | 2.00 | 50% of float32 |" in page
    assert "| minilm, short, float32 | 2.00 |" in page
    assert "failed: not installed" in page


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.model
@pytest.mark.timeout(900)
def test_smoke_run_writes_a_page_with_every_contender(tmp_path):
    command = [sys.executable, "-m", "benchmarks.speed", "--quick", "--output", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")})
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    failed = {found["label"]: found["failed"] for found in rows if found["failed"]}
    peers = ("OpenVINO", "ONNX", "Daft")  # only where `make bench` has installed them
    assert [label for label in failed if not label.startswith(peers)] == []
    assert {found["mix"] for found in rows} == {"short", lineup.END_TO_END}
    assert all(found["cosine"] > 0.999 for found in rows if not found["failed"])
    page = (tmp_path / "speed.md").read_text()
    assert [found["label"] for found in rows if found["label"] not in page] == []


def test_a_run_that_keeps_cells_says_which_run_they_are_of():
    def run(date: str, *cells: tuple[str, str], peak: float) -> dict[str, object]:
        rows = [row("embatch encoder, float32", [1.0], model=model, mix=mix, of=date) for model, mix in cells]
        head = {"date": date, "command": "make bench", "seconds": 1, "machine": {"commit": f"c{date}"}}
        return {**head, "rows": rows, "kept": [], "peak": {"float32": peak}}

    first = run("1", ("minilm", "short"), ("minilm", "long"), ("mpnet", "long"), peak=3.0)
    second, third = run("2", ("minilm", "short"), peak=1.0), run("3", ("mpnet", "long"), peak=2.0)
    keep(second, first)
    keep(third, second)
    assert [(one["date"], one["cells"]) for one in third["kept"]] == [("1", ["minilm, long"]), ("2", ["minilm, short"])]
    assert {(one["model"], one["mix"]): one["of"] for one in third["rows"]} == {
        ("minilm", "long"): "1",
        ("minilm", "short"): "2",
        ("mpnet", "long"): "3",
    }
    assert third["peak"] == {"float32": 3.0}
