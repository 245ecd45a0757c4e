"""A job between buckets on a token-protected cluster that loses a node, gets another one, and loses its driver."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from ray_nodes import RayNodes
from samples import ROOT, make_rows

from pipeline.checkpoint import manifest
from pipeline.storage import open_store

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.slow, pytest.mark.timeout(600)]

ROWS, UNIT_ROWS = 500, 25
PATIENCE_SECONDS = 240


@pytest.fixture
def small_cluster(bucket):
    """A head and two nodes, with the environment of the S3 server."""
    nodes = RayNodes()
    nodes.first, nodes.second = nodes.add_node(), nodes.add_node()
    yield nodes
    nodes.close()


@pytest.fixture
def job_file(bucket, s3_client, tmp_path):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(make_rows(0, ROWS)), sink)
    s3_client.put_object(Bucket=bucket, Key="corpus/a.parquet", Body=sink.getvalue())
    job = {
        "name": "lost-nodes",
        "input": {"uri": f"s3://{bucket}/corpus"},
        "encoder": {"model": "hashing:16?delay_ms_per_1000_rows=80000"},
        "output": {"uri": f"s3://{bucket}/out", "unit_rows": UNIT_ROWS},
        "cluster": {"device": "cpu", "replicas": {"min": 1, "max": 2}},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def wait_for(condition, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.5)


def drivers() -> list[int]:
    """Processes that run the submitted job; their parent is the job's shell."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            name = (folder / "cwd").readlink().name
        except OSError:
            continue
        if command[1:5] == [b"-m", b"jobs.cli", b"run", b"job.yaml"] and name.startswith("_ray_pkg_"):
            found.append(int(folder.name))
    return found


def test_every_row_is_there_once_after_a_lost_node_and_a_lost_driver(
    small_cluster, job_file, bucket, embatch, tmp_path
):
    output = f"s3://{bucket}/out"
    store = open_store(output)
    command = [sys.executable, "-m", "jobs.cli", "submit", str(job_file), "--address", small_cluster.address, "--json"]
    environment = {**os.environ, **small_cluster.environment()}
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as submit:
        committed = lambda: len(store.list("data"))  # noqa: E731
        wait_for(lambda: committed() >= 3, submit)
        small_cluster.kill(small_cluster.first)
        small_cluster.add_node()
        seen = committed()
        wait_for(lambda: committed() >= seen + 4, submit)
        assert committed() < ROWS // UNIT_ROWS, "the driver is lost while there is work left"
        for driver in drivers():
            os.kill(driver, signal.SIGKILL)
        out, err = submit.communicate(timeout=PATIENCE_SECONDS)
    assert submit.returncode == 0, err
    assert "ended with exit 8; submitting it again, attempt 2 of 3" in err
    assert json.loads(out)["status"] == "SUCCEEDED"
    assert json.loads(out)["id"].endswith("-2")

    alone = embatch(
        "run", str(job_file), "--output", str(tmp_path / "alone"), "--model", "hashing:16",
        "--set", "cluster={address: local, device: cpu, replicas: 2}", "--json",
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    head = manifest.load_head(store)
    assert head is not None
    assert head["content_digest"] == json.loads(alone.stdout)["content_digest"]
    checked = embatch("verify", output, "--json")
    assert checked.returncode == 0, checked.stdout
