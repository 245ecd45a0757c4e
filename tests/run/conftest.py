"""A Ray cluster that in-process runs join, and the whole output of a job as one table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from samples import job_over, write_corpus

from pipeline.config import JobConfig, parse_job
from pipeline.embeddings import read_embeddings
from pipeline.job import run
from pipeline.report import RunReport


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One small Ray for all in-process runs of the session; its address."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        head = {"num_cpus": 2, "object_store_memory": 200 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield cluster.address
        cluster.shutdown()


@pytest.fixture
def config(job: dict[str, Any], ray_cluster: str) -> JobConfig:
    """The job, on the session's cluster."""
    return on(ray_cluster, job)


def on(ray_cluster: str, job: dict[str, Any]) -> JobConfig:
    return parse_job({**job, "cluster": {"address": ray_cluster, "device": "cpu", "replicas": 2}})


@dataclass(frozen=True)
class Finished:
    """A job that was run, its report, and its corpus."""

    config: JobConfig
    report: RunReport
    corpus: Path


def finish(ray_cluster: str, folder: Path, **output: str) -> Finished:
    job = job_over(write_corpus(folder / "corpus"), folder / "out")
    job["output"] |= output
    config = on(ray_cluster, job)
    return Finished(config, run(config), folder / "corpus")


@pytest.fixture(scope="session")
def run_once(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The job, run once for all tests that begin with its output; those that change it take `finished`."""
    folder = tmp_path_factory.mktemp("run-once")
    found = finish(ray_cluster, folder / "now")
    shutil.copytree(folder / "now", folder / "kept")
    return found


@pytest.fixture
def finished(run_once: Finished) -> Finished:
    """A finished job, corpus and output as they were at its end, also by the times of their files."""
    now = run_once.corpus.parent
    shutil.rmtree(now)
    shutil.copytree(now.with_name("kept"), now)
    return run_once


@pytest.fixture(scope="session")
def compact_once(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The job with compact vectors, run once, for tests that only read its output."""
    return finish(ray_cluster, tmp_path_factory.mktemp("compact-once"), vectors="int8")


@pytest.fixture
def job_file(job: dict[str, Any], tmp_path: Path) -> Path:
    """The job as a file, for the command."""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


@pytest.fixture(scope="session")
def rows_of() -> Callable[[str], list[tuple[str, int]]]:
    """The row keys of a complete output, sorted."""

    def read(output: str) -> list[tuple[str, int]]:
        table = pa.concat_tables(read_embeddings(output, ["source_file", "source_row"]))
        return sorted(zip(table["source_file"].to_pylist(), table["source_row"].to_pylist(), strict=True))

    return read


@pytest.fixture(scope="session")
def digest_of() -> Callable[[str], str]:
    """The content digest in an output's manifest."""

    def read(output: str) -> str:
        digest: str = json.loads((Path(output) / "_job/manifest.json").read_text())["content_digest"]
        return digest

    return read
