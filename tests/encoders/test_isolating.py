"""Texts that end the process that encodes them are found by real crashes of real processes, and cost no other text."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from encoders.tiny_models import bert, write_model
from samples import ROOT

from pipeline.config import EncoderConfig
from pipeline.encoders import isolating, registry
from pipeline.encoders.hashing import HashingEncoder, resolve
from pipeline.encoders.isolating import NotIsolatedError, SpareProcess, encode_isolated
from pipeline.encoders.precision import Device
from pipeline.exceptions import ModelError
from pipeline.records import DeadCode

SPEC = resolve("hashing:8", "")
TEXTS = [f"text {row}" for row in range(20)]


@pytest.fixture
def spare():
    with closing(SpareProcess(SPEC, "cpu", 1)) as process:
        yield process


def prepare(texts):
    return HashingEncoder(SPEC).prepare(texts)


def rule(monkeypatch, *rules):
    monkeypatch.setenv("EMBATCH_FAILPOINTS", ";".join(rules))


@pytest.mark.parametrize(("action", "how"), [("SIGSEGV", "by SIGSEGV"), ("exit=3", "with exit code 3")])
def test_guilty_texts_are_found_and_no_other_is_lost(spare, monkeypatch, action, how):
    rule(monkeypatch, f"encode.text@word=poison:{action}")
    texts = [*TEXTS[:7], "a poison", *TEXTS[7:]]
    signs = []
    found = encode_isolated(spare, prepare(texts), lambda: signs.append(None))
    expected = HashingEncoder(SPEC).encode(prepare(TEXTS))
    assert found.dead == {7: (DeadCode.WORKER_KILLED, f"a process that encoded it alone ended {how}, twice")}
    np.testing.assert_array_equal(np.delete(found.vectors, 7, 0), expected)
    assert np.isnan(found.vectors[7]).all()
    assert len(signs) > 10


def test_several_guilty_texts_are_found_and_those_beside_them_are_not_blamed(spare, monkeypatch):
    rule(monkeypatch, "encode.text@word=poison:SIGSEGV")
    texts = ["poison", "poison", "innocent", *TEXTS, "poison"]
    found = encode_isolated(spare, prepare(texts), lambda: None)
    assert sorted(found.dead) == [0, 1, len(texts) - 1]
    assert np.isfinite(found.vectors[2:-1]).all()


def test_a_process_that_ended_for_another_reason_costs_no_text(spare, monkeypatch, tmp_path):
    rule(monkeypatch, f"encode.text:once={tmp_path / 'killed'},SIGKILL")
    found = encode_isolated(spare, prepare(TEXTS), lambda: None)
    assert found.dead == {}
    np.testing.assert_array_equal(found.vectors, HashingEncoder(SPEC).encode(prepare(TEXTS)))


def test_where_every_text_ends_its_process_none_is_blamed(spare, monkeypatch):
    monkeypatch.setattr(isolating, "HOPELESS", 3)
    rule(monkeypatch, "encode.text:SIGSEGV")
    with pytest.raises(NotIsolatedError, match="3 processes that encoded parts of it ended, the last one by SIGSEGV"):
        encode_isolated(spare, prepare(TEXTS), lambda: None)


def test_too_many_guilty_texts_end_the_search(spare, monkeypatch):
    monkeypatch.setattr(isolating, "MOST_ENDED", 5)
    rule(monkeypatch, "encode.text@word=poison:SIGSEGV")
    texts = [*TEXTS, "poison", "more poison"]
    with pytest.raises(NotIsolatedError, match="5 processes"):
        encode_isolated(spare, prepare(texts), lambda: None)


def test_an_error_of_the_encoder_is_an_error_here(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    write_model(folder, lambda size: bert(size, width=64, inner=128, heads=2), "word_piece")
    spec = registry.resolve(EncoderConfig(model=str(folder), pooling="mean"), Device(kind="cpu", bf16=False))
    (folder / "model.safetensors").unlink()
    with closing(SpareProcess(spec, "cpu", 1)) as spare, pytest.raises(ModelError) as caught:
        spare.encode(prepare(TEXTS))
    assert str(folder) in str(caught.value)


def test_the_process_ends_with_the_one_that_needs_it():
    code = """
import os, signal
from pipeline.encoders.hashing import HashingEncoder, resolve
from pipeline.encoders.isolating import SpareProcess
if __name__ == "__main__":
    spec = resolve("hashing:8", "")
    spare = SpareProcess(spec, "cpu", 1)
    spare.encode(HashingEncoder(spec).prepare(["a"]))
    print(spare._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 10
    while _runs(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(int(done.stdout))


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
