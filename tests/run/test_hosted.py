"""A whole run with a hosted model that fails by plan: every row once, every token counted, the key nowhere."""

from __future__ import annotations

import json
import logging
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from openai_server import FORBIDDEN, HARMLESS, KEY, MODEL, Faults, serving
from samples import make_rows, write_jsonl

from pipeline.audit import verify
from pipeline.config import parse_job
from pipeline.embeddings import read_embeddings
from pipeline.exceptions import CostReachedError, LimitReachedError, ModelError
from pipeline.job import run
from pipeline.telemetry import Silent

pytestmark = pytest.mark.ray

ROWS = make_rows(0, 200)
REFUSED_AT, EMPTY_AT = 77, 150
ROWS[REFUSED_AT]["text"] = f"{FORBIDDEN} text"
ROWS[EMPTY_AT]["text"] = " "
GOOD = [row["text"] for number, row in enumerate(ROWS) if number not in (REFUSED_AT, EMPTY_AT)]


@pytest.fixture
def values(server, tmp_path):
    """A job of 200 rows in 8 units, some requests each."""
    write_jsonl(tmp_path / "corpus/a.jsonl", ROWS)
    remote = {
        "base_url": server.url,
        "service": "the server of the test",
        "max_batch_items": 4,
        "timeout_seconds": 1.0,
        "price_per_million_tokens": 1000.0,
    }
    return {
        "input": {"uri": str(tmp_path / "corpus")},
        "encoder": {"model": MODEL, "backend": "remote", "remote": remote},
        "output": {"uri": str(tmp_path / "out"), "unit_rows": 25},
        "limits": {"max_dead_rate": 0.01},
    }


@pytest.fixture
def ray_folder():
    """A place for Ray's own logs; its sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix="embatch-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def table_of(output):
    return pa.concat_tables(read_embeddings(output)).sort_by("source_row")


def committed_rows(values):
    files = Path(values["output"]["uri"], "data").glob("*.parquet")
    return {row for path in files for row in pq.ParquetFile(path).read()["source_row"].to_pylist()}


def vectors_of(table):
    return np.array(table["embedding"].to_pylist(), np.float32)


def total(server):
    return sum(server.tokens(text) for text in GOOD)


def test_a_run_gets_over_every_fault_and_a_kill_and_leaves_the_key_nowhere(
    server, values, tmp_path, embatch, ray_folder
):
    values["encoder"]["remote"]["api_key_env"] = "TEST_API_KEY"
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))
    script = random.Random(5).sample(HARMLESS, len(HARMLESS))
    server.faults = Faults(script=[None, *script])  # the plan's request is spared
    server.slow_s = 1.5
    killed = tmp_path / "killed"
    done = embatch(
        "run",
        str(tmp_path / "job.yaml"),
        "--json",
        TEST_API_KEY=KEY,
        RAY_TMPDIR=str(ray_folder),
        EMBATCH_FAILPOINTS=f"encode.mid@unit=3:once={killed},SIGKILL",
    )
    assert done.returncode == 0, done.stderr
    assert killed.exists(), "a replica was lost with a unit that was paid and not committed"
    report = json.loads(done.stdout)
    assert all(server.seen[fault] for fault in HARMLESS)

    output = values["output"]["uri"]
    table = table_of(output)
    assert table["source_row"].to_pylist() == [row for row in range(200) if row not in (REFUSED_AT, EMPTY_AT)]
    assert vectors_of(table).tobytes() == np.stack([server.vector(text) for text in GOOD]).tobytes()
    assert table["n_tokens"].null_count == 198
    totals = report["totals"]
    assert totals["dead_by_code"] == {"EMPTY": 1, "REFUSED": 1}
    assert (totals["tokens"], totals["cost"]) == (total(server), pytest.approx(total(server) / 1000))
    assert report["replicas"] == 1
    letters = pa.concat_tables(pq.ParquetFile(path).read() for path in Path(output, "_dead").iterdir())
    reasons = dict(zip(letters["source_row"].to_pylist(), letters["reason"].to_pylist(), strict=True))
    assert reasons[REFUSED_AT] == "400 The input was rejected for its content"
    audit = verify(output)
    assert (audit.findings, audit.rows) == ((), 198)

    assert KEY not in done.stdout + done.stderr
    looked_at = [path for place in (output, ray_folder) for path in Path(place).rglob("*") if path.is_file()]
    assert any(path.name.startswith("worker-") for path in looked_at), "Ray's logs are among them"
    assert [path for path in looked_at if KEY.encode() in path.read_bytes()] == []


@pytest.mark.slow  # four runs
def test_a_cost_ends_a_run_and_a_higher_one_continues_it(server, values, tmp_path, ray_cluster, caplog):
    caplog.set_level(logging.DEBUG)
    (tmp_path / "key").write_text(KEY + "\n")
    values["encoder"]["remote"] |= {"api_key_file": str(tmp_path / "key"), "max_batch_items": 25}
    values["cluster"] = {"address": ray_cluster, "device": "cpu"}

    def limited(cost, **remote):
        encoder = {**values["encoder"], "remote": {**values["encoder"]["remote"], **remote}}
        return parse_job({**values, "encoder": encoder, "limits": {**values["limits"], "max_cost": cost}})

    server.before = lambda texts: time.sleep(0.02 * len(texts))
    with pytest.raises(CostReachedError, match=r"limits\.max_cost=0\.3 is reached by this output; set a higher one"):
        run(limited(0.3))
    report = json.loads(Path(values["output"]["uri"], "_job/report.json").read_text())
    spent = report["totals"]["cost"]
    assert (report["exit_code"], report["complete"]) == (8, False)
    assert 0.3 <= spent < total(server) / 1000
    asked = server.seen["requests"]
    with pytest.raises(CostReachedError):
        run(limited(spent))
    assert server.seen["requests"] == asked, "the next run pays nothing"

    paid = {ROWS[row]["text"] for row in committed_rows(values)}
    asked_again = []
    with serving() as moved:
        moved.before, moved.faults = asked_again.extend, Faults(script=["rename"])
        with pytest.raises(ModelError, match="answers as model 'another-model'"):
            run(limited(99.0, base_url=moved.url))
        done = run(limited(99.0, base_url=moved.url))
    assert paid
    assert paid.isdisjoint(asked_again), "what is committed is not paid again"
    assert (done.complete, done.totals["tokens"]) == (True, total(server))
    assert (
        vectors_of(table_of(values["output"]["uri"])).tobytes()
        == np.stack([server.vector(text) for text in GOOD]).tobytes()
    )
    assert KEY not in caplog.text
    files = [path for path in Path(values["output"]["uri"]).rglob("*") if path.is_file()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


class Watching(Silent):
    """Keeps what a run told of its calibration."""

    def __init__(self):
        self.sampled = set()

    def progressed(self, progress):
        self.sampled.add((progress.sample_units_done, progress.sample_units))


def test_a_calibration_is_seen_counted_and_paid_once(server, values, tmp_path, ray_cluster):
    (tmp_path / "key").write_text(KEY + "\n")
    values["encoder"]["remote"]["api_key_file"] = str(tmp_path / "key")
    values["cluster"] = {"address": ray_cluster, "device": "cpu"}
    values["output"]["vectors"] = "int8"
    watching = Watching()
    server.before = lambda texts: time.sleep(0.02 * len(texts))
    with pytest.raises(LimitReachedError, match=r"limits\.max_tokens=5 is reached"):
        run(parse_job({**values, "limits": {"max_tokens": 5}}), listener=watching)
    report = json.loads(Path(values["output"]["uri"], "_job/report.json").read_text())
    assert {units for _, units in watching.sampled} == {8}
    assert len(watching.sampled) > 2
    spent = pytest.approx(total(server) / 1000)
    assert (report["totals"]["tokens"], report["totals"]["cost"], report["this_run"]["cost"]) == (0, spent, spent)
    assert report["vectors"]["sample"] == {"rows": 198, "units": 8, "tokens": total(server)}

    server.before = lambda texts: None
    with pytest.raises(CostReachedError):
        run(parse_job({**values, "limits": {"max_cost": 0.9 * total(server) / 1000}}))
    assert not committed_rows(values)
    done = run(parse_job(values))
    assert (done.totals["tokens"], done.this_run["cost"]) == (total(server), spent)
    assert done.totals["cost"] == pytest.approx(2 * total(server) / 1000)
    assert verify(values["output"]["uri"]).findings == ()
