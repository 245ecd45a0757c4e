"""A run on a machine that is short of memory, or of room for what is read ahead."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray_nodes import RayNodes
from samples import write_jsonl

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def is_whole(job, job_file, embatch, tmp_path, digest_of):
    """Run the job to its end, and see that the output is an undisturbed run's and `embatch verify` agrees."""

    def look():
        output, alone = job["output"]["uri"], str(tmp_path / "undisturbed")
        for uri in (output, alone):
            done = embatch("run", str(job_file), "--output", uri)
            assert done.returncode == 0, done.stderr
        assert embatch("verify", output).returncode == 0
        return digest_of(output) == digest_of(alone)

    return look


@pytest.fixture
def full_disk():
    """A node whose payloads cannot be moved to a disk: it is always taken for full."""
    nodes = RayNodes(job_server=False, RAY_local_fs_capacity_threshold="0.01")
    nodes.add_node()
    yield nodes
    nodes.close()


def on(cluster):
    return "--set", f"cluster={{address: '{cluster.head}', device: cpu, replicas: 1}}"


def write_large_texts(corpus, *, files, rows):
    """Files of rows whose texts have about half a megabyte each."""
    for old in corpus.iterdir():
        old.unlink()
    for file in range(files):
        texts = [{"id": f"{file}-{row}", "year": 2000, "text": f"{file} {row} " * 125_000} for row in range(rows)]
        write_jsonl(Path(corpus, f"{file:02d}.jsonl"), texts)


def test_memory_that_is_always_short_is_not_waited_for_without_end(job_file, embatch, is_whole):
    short = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    done = embatch("run", str(job_file), "--set", "limits.stall_seconds=60", **short)
    assert done.returncode == 8, done.stderr
    assert "running low on memory" in done.stderr
    assert "Traceback" not in done.stderr
    assert is_whole()


def test_payloads_wait_while_there_is_no_room_for_them(corpus, job_file, embatch, full_disk, is_whole):
    write_large_texts(corpus, files=24, rows=10)  # more than the node holds
    done = embatch("run", str(job_file), *on(full_disk), **full_disk.environment())
    assert done.returncode == 0, done.stderr
    assert is_whole()
