"""What a real run leaves for people: its page and its report, which say the same."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pages import needs_nothing, report_and_page
from samples import make_rows, write_jsonl

from pipeline.checkpoint import claims
from pipeline.config import parse_job
from pipeline.job import run

pytestmark = [pytest.mark.ray, pytest.mark.model]

EVIL = "<script>alert(1)</script>.jsonl"


@pytest.fixture(scope="module")
def seen(tmp_path_factory, ray_cluster):
    """Run a job with true weights over files of bad names and rows; its report and page."""
    folder = tmp_path_factory.mktemp("seen")
    write_jsonl(folder / "corpus" / EVIL, make_rows(0, 30))
    long = [{"id": "<script>alert(2)</script>", "text": "word " * 400}, {"id": 1, "text": " "}]
    write_jsonl(folder / "corpus/long.jsonl", long)
    job = {
        "name": "seen",
        "input": {"uri": str(folder / "corpus")},
        "encoder": {"model": "packaged:all-MiniLM-L6-v2", "max_batch_tokens": 512},
        "output": {"uri": str(folder / "out"), "unit_rows": 10},
        "cluster": {"address": ray_cluster, "device": "cpu", "replicas": 1},
    }
    assert run(parse_job(job)).complete
    return *report_and_page(str(folder / "out")), job


def test_the_page_says_what_the_report_says_and_needs_nothing_else(seen):
    _, page, job = seen
    needs_nothing(page)
    assert EVIL in page.words
    assert "alert(2)" not in page.words
    assert job["output"]["uri"] in page.words
    figures = {"totals.rows_ok": "31", "this_run.truncated": "1", "totals.dead_by_code.EMPTY": "1", "exit_code": "0"}
    assert {name: page.figures[name] for name in figures} == figures


def test_the_report_tells_of_lengths_batches_and_slow_units(seen):
    now = seen[0]["this_run"]
    assert sum(found["rows"] for found in now["token_lengths"]) == now["rows_ok"] == 31
    assert [(found["least"], found["most"]) for found in now["token_lengths"]][-1] == (193, 256)
    assert 0 < now["batch_fill"] <= 1
    assert len(now["slowest_units"]) == now["units"] == 4
    assert {source.partition(" rows ")[0] for unit in now["slowest_units"] for source in unit["sources"]} == {
        EVIL,
        "long.jsonl",
    }
    course = now["throughput"]
    assert (course["rows"][-1], course["tokens"][-1]) == (now["rows"], now["tokens"])
    assert course["seconds"] == sorted(course["seconds"])


def test_the_report_tells_who_made_the_output_and_how(seen):
    report, _, job = seen
    assert report["hosts"] == {socket.gethostname(): 1}
    assert sum(report["devices"].values()) == 1
    assert report["versions"] == claims.versions()
    assert report["parameters"]["output"]["uri"] == job["output"]["uri"]
    assert report["parameters"]["limits"]["stall_seconds"] == 900.0
    assert report["started"] < report["ended"]
    assert Path(job["output"]["uri"], "_job/runs/000001.report.html").exists()
