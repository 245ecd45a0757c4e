"""Nodes that stand still, are drained or lost with all the others, and a head that is lost: real signals to raylets."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from commands import start
from ray_nodes import RayNodes

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_SECONDS = 240
STALL = ("--set", "limits.stall_seconds=40")


@pytest.fixture
def job(job):
    """A job whose twelve units take three seconds each."""
    return {**job, "encoder": {"model": "hashing:16?delay_ms_per_1000_rows=120000"}}


@pytest.fixture
def cluster():
    """A head and two nodes with room for one replica each."""
    nodes = RayNodes(job_server=False)
    nodes.first, nodes.second = nodes.add_node(), nodes.add_node()
    yield nodes
    nodes.close()


@pytest.fixture
def begin(job, job_file):
    """Starts the run on a cluster and waits until it has committed three units; what is left behind is killed."""
    begun = []

    def call(cluster, *arguments):
        running = start(job_file, *on(cluster), *arguments, **cluster.environment())
        begun.append(running)
        until = time.monotonic() + PATIENCE_SECONDS
        while len(committed(job)) < 3:
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < until
            time.sleep(0.2)
        return running

    yield call
    for running in begun:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)


@pytest.fixture
def is_whole(job, job_file, embatch, tmp_path, digest_of):
    """Tells whether the output is what an undisturbed run makes, and `embatch verify` agrees."""

    def look():
        alone = str(tmp_path / "undisturbed")
        done = embatch("run", str(job_file), "--model", "hashing:16", "--output", alone)
        assert done.returncode == 0, done.stderr
        output = job["output"]["uri"]
        checked = embatch("verify", output)
        assert checked.returncode == 0, checked.stdout
        return digest_of(output) == digest_of(alone)

    return look


def on(cluster):
    return "--set", f"cluster={{address: '{cluster.head}', device: cpu, replicas: 2}}"


def committed(job):
    return {path.name: path.read_bytes() for path in Path(job["output"]["uri"], "data").glob("*.parquet")}


def end(running):
    """What it ended with and what it said, within its time."""
    said, _ = running.communicate(timeout=PATIENCE_SECONDS)
    assert "Traceback" not in said
    return running.returncode, said


def continued(cluster, job, job_file, embatch):
    """Run the same command to its end, and see that it made nothing again that was committed."""
    kept = committed(job)
    done = embatch("run", str(job_file), *on(cluster), "--json", **cluster.environment())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["this_run"]["units"] == 12 - len(kept)
    assert {name: committed(job)[name] for name in kept} == kept


def test_a_node_that_stands_still_for_ten_seconds_costs_no_row(cluster, begin, is_whole):
    running = begin(cluster)
    cluster.signal(cluster.second, "raylet", signal.SIGSTOP)
    time.sleep(10)
    cluster.signal(cluster.second, "raylet", signal.SIGCONT)
    code, said = end(running)
    assert code == 0, said
    assert is_whole()


def test_a_node_that_stands_still_for_ever_hangs_no_run(cluster, begin, is_whole, job, job_file, embatch):
    running = begin(cluster, *STALL)
    cluster.signal(cluster.second, "raylet", signal.SIGSTOP)
    code, said = end(running)
    assert code in (0, 7), said  # Ray may wait for it for ever: limits.stall_seconds does not
    continued(cluster, job, job_file, embatch)
    assert is_whole()


@pytest.mark.parametrize("lost", ["gcs_server", "head"])
def test_a_run_that_lost_the_head_is_continued_on_another_cluster(
    cluster, begin, is_whole, job, job_file, embatch, lost
):
    running = begin(cluster, "--set", "limits.stall_seconds=500")
    if lost == "head":
        cluster.kill(0)
    else:
        cluster.signal(0, lost, signal.SIGKILL)
    code, said = end(running)
    assert code == 8, said
    cluster.close()
    other = RayNodes(job_server=False)
    try:
        other.add_node()
        continued(other, job, job_file, embatch)
    finally:
        other.close()
    assert is_whole()


def test_a_run_without_nodes_waits_for_the_next_one(cluster, begin, is_whole):
    running = begin(cluster)
    for node in (cluster.first, cluster.second):
        cluster.kill(node)
    time.sleep(10)
    cluster.add_node()
    code, said = end(running)
    assert code == 0, said
    assert is_whole()


def test_a_run_without_nodes_ends_as_stalled(cluster, begin, is_whole, job, job_file, embatch):
    running = begin(cluster, *STALL)
    for node in (cluster.first, cluster.second):
        cluster.kill(node)
    code, said = end(running)
    assert code == 7, said
    cluster.add_node()
    continued(cluster, job, job_file, embatch)
    assert is_whole()


def test_a_drained_node_is_left_before_it_is_taken_away(cluster, begin, is_whole):
    running = begin(cluster)
    cluster.drain(cluster.second, 4)
    time.sleep(4)
    cluster.kill(cluster.second)
    assert running.poll() is None, "the node is taken away while there is work left"
    cluster.add_node()
    code, said = end(running)
    assert code == 0, said
    assert is_whole()
