"""What is measured, what is recommended of it, and that recommendations fit a job."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import yaml
from encoders import tiny_models
from samples import ROOT, make_rows, write_jsonl

from jobs.verbs.tune import IDENTITY, settings_yaml, show
from pipeline.config import EncoderConfig, parse_job
from pipeline.encoders import precision, registry
from pipeline.encoders.measuring import tuning
from pipeline.encoders.measuring.replicas import ReplicaPool
from pipeline.encoders.measuring.tuning import Comparison, Measurement, Setting, Tuning, choose, excerpt, length_mix
from pipeline.encoders.precision import Device
from pipeline.exceptions import ConfigError, ModelError

CPU = Device(kind="cpu", bf16=False)
DEFAULT = Setting(replicas=2, threads=1, max_batch_tokens=2048, dtype="float32")


def measured(tokens: int, *rates: float) -> Measurement:
    """Return what a budget was measured at."""
    setting = Setting(replicas=2, threads=1, max_batch_tokens=tokens, dtype="float32")
    return Measurement(setting=setting, tokens_per_s=rates)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return a BERT of two narrow layers."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_models.write_model(folder, partial(tiny_models.bert, width=32, inner=64, heads=2), "word_piece")
    tiny_models.write_chain(folder, [("Pooling", {"embedding_dimension": 32, "pooling_mode_mean_tokens": True})])
    return folder


@pytest.mark.parametrize(
    ("others", "best", "gain"),
    [
        ([measured(512, 130, 99, 130)], 2048, 1.0),  # once slower
        ([measured(512, 102, 102, 102)], 2048, 1.0),  # within the noise
        ([measured(512, 90, 80, 90)], 2048, 1.0),
        ([measured(512, 110, 105, 120), measured(1024, 111, 130, 112)], 1024, 1.12),
        ([measured(512, 0, 0, 0)], 2048, 1.0),  # out of memory
    ],
)
def test_another_setting_is_taken_only_where_it_is_faster_in_every_round(others, best, gain):
    found = choose("encoder.max_batch_tokens", [measured(2048, 100, 100, 100), *others])
    assert found.best.setting.max_batch_tokens == best
    assert found.gain == pytest.approx(gain)


def test_rounds_are_compared_pair_by_pair_so_that_a_machine_that_slows_down_misleads_nobody():
    found = choose("encoder.max_batch_tokens", [measured(2048, 100, 50, 20), measured(512, 110, 56, 23)])
    assert found.best.setting.max_batch_tokens == 512


def test_settings_are_valid_in_a_job_and_name_only_what_is_faster():
    layouts = choose("cluster.replicas", [measured(2048, 10, 10, 10)])
    budgets = choose("encoder.max_batch_tokens", [measured(2048, 10, 10, 10), measured(512, 12, 12, 12)])
    found = _tuning(layouts, budgets)

    assert found.settings == {"encoder.max_batch_tokens": 512}
    section = yaml.safe_load(settings_yaml(found))
    job = parse_job({"input": {"uri": "in"}, "output": {"uri": "out"}, "encoder": {"model": "m", **section["encoder"]}})
    assert job.encoder.max_batch_tokens == 512


def test_a_better_layout_is_named_in_replicas_as_a_run_shares_the_cores():
    one = Measurement(
        setting=Setting(replicas=1, threads=2, max_batch_tokens=2048, dtype="float32"), tokens_per_s=(20, 20, 20)
    )
    layouts = choose("cluster.replicas", [measured(2048, 10, 10, 10), one])
    found = _tuning(layouts, choose("encoder.max_batch_tokens", [one]))
    assert yaml.safe_load(settings_yaml(found)) == {"cluster": {"replicas": 1}}


def test_people_see_every_measurement_what_to_write_and_what_it_does_to_vectors(capsys):
    rates = [measured(2048, 1000, 1000, 1000), measured(512, 1100, 1200, 1300)]
    show(_tuning(choose("encoder.max_batch_tokens", rates)))
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert ["512", "1,200", "1,100", "1,300", "1.20", "best"] in lines
    assert ["2048", "1,000", "1,000", "1,000", "1.00", "baseline"] in lines
    assert ["max_batch_tokens:", "512", "#", "1.20", "times", "as", "fast", "as", "2048"] in lines
    assert shown.endswith(f"{IDENTITY}\n")


def test_what_does_not_fit_is_shown_as_such(capsys):
    show(_tuning(choose("encoder.max_batch_tokens", [measured(2048, 9, 9, 9), measured(8192, 9, 0, 0)])))
    assert ["8192", "out", "of", "memory"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_mix_of_lengths_is_the_same_any_time_and_spans_what_the_model_reads():
    mix = length_mix(512, 30_000)
    assert mix == length_mix(512, 30_000)
    assert 1 <= mix.n_tokens.min() <= 8
    assert mix.n_tokens.max() == 512
    assert 64 < np.median(mix.n_tokens) < 128
    assert len(mix.token_ids) == mix.n_tokens.sum()


@pytest.mark.parametrize("tokens", [3000, 40_000, 10**6])
def test_an_excerpt_has_about_the_tokens_asked_for_with_the_lengths_of_the_whole(tokens):
    mix = length_mix(256, 30_000)
    part = excerpt(mix, tokens)
    assert len(part.token_ids) == part.n_tokens.sum() == pytest.approx(tokens, rel=0.3)
    assert part.n_tokens.mean() == pytest.approx(mix.n_tokens.mean(), rel=0.3)


def test_an_excerpt_keeps_texts_and_tokens_together(tiny):
    texts = [f"{'word ' * number} end" for number in range(30)]
    preparer = registry.build_preparer(registry.resolve(EncoderConfig(model=str(tiny)), CPU))
    whole = preparer.prepare(texts)
    part = excerpt(whole, int(whole.n_tokens.sum()))
    ids = np.split(np.asarray(part.token_ids), np.cumsum(part.n_tokens)[:-1])
    expected = sorted((preparer.prepare([text]).token_ids.to_pylist() for text in texts), key=len, reverse=True)
    assert [row.tolist() for row in ids] == expected


def test_a_model_is_tuned_from_end_to_end(tiny):
    said = []
    limits = tuning.Limits(cpus=2, seconds=0.01)
    found = tuning.tune(EncoderConfig(model=str(tiny), max_batch_tokens=256), CPU, limits, say=said.append)

    layouts, budgets = found.comparisons
    assert [(it.setting.replicas, it.setting.threads) for it in layouts.measurements] == [(2, 1), (1, 2)]
    assert {it.setting.max_batch_tokens for it in budgets.measurements} >= {64, 128, 256}
    assert all(rate > 0 for it in (*layouts.measurements, *budgets.measurements) for rate in it.tokens_per_s)
    assert {len(it.tokens_per_s) for it in budgets.measurements} == {tuning.ROUNDS}
    assert len(said) == 3
    assert json.loads(json.dumps(found.to_values()))["texts"] == found.texts
    assert not multiprocessing.active_children()


def test_where_bfloat16_is_native_both_precisions_are_compared_but_none_is_recommended(tiny):
    limits = tuning.Limits(cpus=1, seconds=0.01)
    config = EncoderConfig(model=str(tiny), max_batch_tokens=64, dtype="float32", backend="padded")
    found = tuning.tune(config, Device(kind="cpu", bf16=True), limits)
    assert [it.key for it in found.comparisons] == ["encoder.max_batch_tokens", "encoder.dtype"]
    assert [it.setting.dtype for it in found.comparisons[-1].measurements] == ["float32", "bfloat16"]
    assert "encoder.dtype" not in found.settings


def test_weights_that_a_replica_cannot_load_are_refused_in_the_parent(tiny, tmp_path):
    spec = registry.resolve(EncoderConfig(model=str(tiny)), CPU)
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with ReplicaPool(1, "cpu") as pool, pytest.raises(ModelError, match="cannot load"):
        pool.tokens_per_s(replace(spec, folder=str(tmp_path)), length_mix(8, 100), replicas=1, threads=1)


def test_the_hashing_encoder_has_nothing_to_tune():
    with pytest.raises(ConfigError, match="nothing to tune"):
        tuning.tune(EncoderConfig(model="hashing:8"), CPU, tuning.Limits(cpus=1))


def test_the_command_measures_on_the_rows_of_a_job(tiny, tmp_path, embatch):
    write_jsonl(tmp_path / "in/a.jsonl", make_rows(0, 20))
    job = {"input": {"uri": str(tmp_path / "in")}, "output": {"uri": "out"}, "encoder": {"model": str(tiny)}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**job, "cluster": {"replicas": 1, "device": "cpu"}}))

    done = embatch(
        "tune", str(tmp_path / "job.yaml"), "--seconds", "0.01", "--set", "encoder.max_batch_tokens=64", "--json"
    )

    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["sample"]["rows"] == 20
    precisions = ["encoder.dtype"] if precision.detect("cpu").bf16 else []
    assert [it["key"] for it in values["comparisons"]] == ["encoder.max_batch_tokens", *precisions]
    assert {it["setting"]["replicas"] for it in values["comparisons"][0]["measurements"]} == {1}


def test_an_input_without_rows_gives_exit_10(tiny, tmp_path, embatch):
    write_jsonl(tmp_path / "in/a.jsonl", [])
    done = embatch("tune", str(tiny), "--input", str(tmp_path / "in"), "--json")
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (10, 10)


def test_an_interrupt_ends_the_command_and_its_replicas_with_exit_8(tiny):
    command = [sys.executable, "-m", "jobs.cli", "tune", str(tiny), "--device", "cpu", "--seconds", "60", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    first = process.stderr.readline()  # the replicas are starting
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
    out, err = process.communicate(timeout=60)  # until the replicas, too, have closed their ends
    assert "loading" in first
    assert (process.returncode, json.loads(out)["kind"]) == (8, "InterruptedRunError")
    assert "Traceback" not in err


def _tuning(*comparisons: Comparison) -> Tuning:
    return Tuning(model="m", device="cpu", comparisons=comparisons, best=comparisons[-1].best, texts=1, tokens=1)
