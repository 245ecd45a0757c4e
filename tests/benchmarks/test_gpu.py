"""The benchmark of one GPU, on a CPU: the whole path with tiny models, its checks, its table, its time."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from benchmarks.gpu import limits, table
from benchmarks.gpu.bench import END_TO_END, Bench, lineup, weights
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.contest import OURS, PEER, PLAIN, Contest, Options
from benchmarks.gpu.kernels import union
from benchmarks.speed import models
from benchmarks.speed.attempts import agreement
from samples import ROOT

from pipeline.encoders import precision

COMMAND = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--models", "tiny", "tiny-instructor"]
PEAK = {"float32": 1e9, "bfloat16": 1e9}
OPTIONS = Options(device="cpu", seconds=0.01, rounds=2, peak=PEAK, data=ROOT / "jobs/demo/corpus")


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    work = tmp_path_factory.mktemp("models")
    models.write("tiny", work / "tiny")
    return models.find("tiny", work)


@pytest.fixture(scope="module")
def opened(model):
    found = Contest(model, OPTIONS)
    yield found
    found.close()


@pytest.fixture
def contest(opened):
    engines = dict(opened._engines)
    yield opened
    opened._engines = engines


def plenty():
    return Budget(3600, Clock()).share([1])


@pytest.mark.slow  # three engines on every cell
@pytest.mark.timeout(280)
def test_a_run_measures_every_engine_on_every_cell_and_prints_its_table_last(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [*COMMAND, "--mixes", "128", "mixed", "--budget", "600", "--output", str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
    found = json.loads((tmp_path / "gpu.json").read_text())
    cells = {(row["model"], row["mix"]): [] for row in found["rows"]}
    for row in found["rows"]:
        cells[row["model"], row["mix"]].append(row["label"])
    assert [row["failed"] for row in found["rows"] if row["failed"]] == []
    assert set(cells) == {(model, mix) for model in ("tiny", "tiny-instructor") for mix in ("128", "mixed")}
    assert {len(set(labels)) for labels in cells.values()} == {5}
    assert {row["tokens"] / row["texts"] for row in found["rows"] if row["mix"] == "128"} == {128}
    assert all(row["cosine"] > 0.9999 for row in found["rows"])
    assert found["profile"]["kernels"]
    page = (tmp_path / "gpu.md").read_text()
    assert done.stdout == page + "\n"
    assert page.rstrip("\n").endswith(table.results(found))
    assert "A smoke run (CPU --quick)" in page
    assert len(table.results(found).splitlines()) == 2 + len(found["rows"])


class Wrong:
    """An engine whose vectors were tampered with."""

    def __init__(self, engine, change) -> None:
        self._engine, self._change, self.settings = engine, change, "wrong"

    def take(self, work) -> None:
        self._engine.take(work)

    def encode(self, source, **options):
        return self._change(self._engine.encode(source, **options))


def tamper(contest, engine, change) -> None:
    key = engine, contest._spec.dtype
    contest._engines[key] = Wrong(contest._engines[key], change)


def test_vectors_in_another_order_fail_before_anything_is_timed(contest):
    tamper(contest, OURS, lambda vectors: vectors[::-1])
    tamper(contest, PLAIN, lambda vectors: vectors[::-1])
    rows = contest.measure("mixed", plenty())
    right = [row for row in rows if row.label.startswith(PEER)]
    wrong = [row for row in rows if not row.label.startswith(PEER)]
    assert len(wrong) == 3
    assert all("its vectors are not the model's" in row.failed and not row.turns for row in wrong)
    assert all(len(row.turns) == 2 and not row.failed for row in right)


def test_a_fault_among_many_texts_and_an_error_are_reasons_that_end_no_other(contest):
    def broken(_vectors):
        raise ZeroDivisionError("no vectors\ntoday")

    tamper(contest, OURS, lambda vectors: vectors if len(vectors) <= 8 else np.roll(vectors, 1, 0))
    tamper(contest, PLAIN, broken)
    rows = {row.label: row for row in contest.measure("128", plenty())}
    assert rows[f"{OURS}, from token ids"].failed.startswith("among 32 texts its vectors are not")
    assert rows[f"{PLAIN}, from token ids"].failed == "ZeroDivisionError: no vectors"
    assert [len(row.turns) for row in rows.values()] == [0, 0, 2, 0, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_never_agree(value):
    reference = np.eye(4, 8)
    found = reference.copy()
    found[2, 3] = value
    assert agreement(reference, reference).fault is None
    with np.errstate(invalid="ignore"):
        assert agreement(found, reference).fault is not None


def test_vectors_that_changed_places_do_not_agree_though_their_cosine_is_high():
    reference = np.ones((4, 64)) + 0.05 * np.eye(4, 64)
    swapped = agreement(reference[::-1], reference)
    assert swapped.cosine > 0.999
    assert swapped.fault is not None


def test_lengths_are_exact_and_mixed_ones_reach_from_one_word_to_the_limit(contest):
    mixed = contest._lengths.work("mixed", 60_000).lengths
    assert set(contest._lengths.work("512", 0).lengths) == {512}
    assert mixed.min() < 12
    assert mixed.max() == 512
    assert 85 <= np.median(mixed) <= 97


def test_a_part_gets_its_share_of_what_is_left():
    clock = Clock()
    budget = Budget(100, clock)
    first = budget.share([2, 1, 1])
    clock.now = 60
    assert first.seconds == 50
    assert first.spent == 60
    assert not first.allows(0)
    assert budget.share([1, 1]).seconds == 20
    clock.now = 200
    assert budget.left == 0


def test_only_a_models_first_cell_weighs_its_loading():
    parts = lineup(["gte-base", "instructor-large"], ["128", "512", END_TO_END])
    assert [(part.model, part.mix) for part in parts] == [
        ("gte-base", "128"),
        ("gte-base", "512"),
        ("instructor-large", "128"),
        ("instructor-large", "512"),
        ("gte-base", END_TO_END),
    ]
    assert weights(parts, None) == [2, 1, 2, 1, 4]
    assert weights(parts[1:], "gte-base") == [1, 2, 1, 4]


def test_a_run_without_time_says_what_it_left_out_and_measures_nothing(tmp_path):
    bench, calls = Bench(OPTIONS, Budget(4, Clock()), tmp_path), []
    bench.run(lineup(["tiny"], ["128", "mixed", END_TO_END]), lambda: calls.append(len(bench.left_out)))
    assert calls == [1, 2, 3]
    assert bench.rows == []
    found = {"rows": [], "left_out": bench.left_out, "limits": {}}
    assert "| tiny | mixed |  | left out: 1 s were left for it |" in table.results(found)


def test_a_cell_whose_time_is_over_takes_fewer_turns(contest):
    clock = Clock()
    share = Budget(10, clock).share([1])
    clock.now = 15
    assert {len(row.turns) for row in contest.measure("128", share)} == {1}
    clock.now = 25
    rows = contest.measure("128", share)
    assert {row.failed for row in rows} == {"no time was left"}
    assert "not all settings tried" in rows[1].settings


def test_a_device_that_is_not_there_is_named_before_anything_is_loaded(tmp_path):
    if precision.nvidia_driver():
        pytest.skip("there is one")
    command = [sys.executable, "-m", "benchmarks.gpu", "--output", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 1
    assert "no CUDA device" in done.stderr
    assert "--device cpu --quick" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_kernels_that_overlap_count_once():
    assert union([(5, 6), (0, 2), (1, 3), (1, 1.5)]) == 4


def test_limits_are_positive_on_any_device():
    dtypes = limits.dtypes_of(precision.detect("cpu"))
    found = limits.measure(torch.device("cpu"), dtypes)
    assert set(found["flops_per_s"]) == set(dtypes)
    assert min(found["copy_bytes_per_s"], *found["flops_per_s"].values()) > 0


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_the_whole_command_stands_beside_the_encoder(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--models", "tiny", "--seconds", "0.1"]
    command += ["--mixes", "mixed", END_TO_END, "--budget", "300", "--output", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")})
    rows = {row["label"]: row for row in json.loads((tmp_path / "gpu.json").read_text())["rows"]}
    whole = rows["embatch run, from files"]
    assert whole["failed"] is None
    assert whole["cosine"] > 0.9999
    assert whole["tokens"] % rows["embatch, from token ids"]["tokens"] == 0
