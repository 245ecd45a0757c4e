"""What Prometheus reads from a cluster while a job runs."""

from __future__ import annotations

import json
import re
import time

import pytest

from pipeline.ray_data import metrics

pytestmark = pytest.mark.ray

SLOW = "encoder.model=hashing:16?delay_ms_per_1000_rows=60000"
NOTHING_CUT_OFF = "embatch_truncated_rows"
SERIES = re.compile(r"^ray_(embatch_[a-z_]+)\{(.*)\} ([0-9.e+-]+)$", re.MULTILINE)


def series(nodes, job: str) -> dict[str, list[tuple[str, float]]]:
    """The series of one job by the metric's name, each with its labels and value."""
    found: dict[str, list[tuple[str, float]]] = {}
    for name, labels, value in SERIES.findall(nodes.metrics()):
        if f'embatch_job="{job}"' in labels:
            found.setdefault(name.removesuffix("_total"), []).append((labels, float(value)))
    return found


def test_a_running_job_shows_all_its_metrics(nodes, on_cluster, job_file):
    corpus = job_file.parent / "corpus/a.jsonl"
    corpus.write_text('{"id": "empty", "text": ""}\n' + corpus.read_text())
    started = on_cluster("submit", str(job_file), "--set", SLOW, "--set", "name=scraped", "--detach", "--json")
    job_id = json.loads(started.stdout)["id"]
    expected = {*metrics.COUNTERS, *metrics.BY_LABEL, *metrics.GAUGES} - {NOTHING_CUT_OFF}
    deadline = time.monotonic() + 200
    while not expected <= (found := series(nodes, "scraped")).keys():
        assert time.monotonic() < deadline, expected - found.keys()
        time.sleep(1)
    assert on_cluster("jobs", "stop", job_id).returncode == 0

    assert sum(value for _, value in found["embatch_rows"]) in range(25, 302)
    assert [(value, 'code="EMPTY"' in labels) for labels, value in found["embatch_dead_rows"]] == [(1.0, True)]
    assert {"encode", "commit", "read"} <= {
        stage for labels, _ in found["embatch_stage_seconds"] for stage in re.findall(r'stage="([^"]*)"', labels)
    }
    assert [value for _, value in found["embatch_replicas"]] == [1.0]
    assert [value for _, value in found["embatch_units_planned"]] == [13.0]
