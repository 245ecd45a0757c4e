"""A token-protected cluster for the module, and the command against it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray_nodes import RayNodes


@pytest.fixture(scope="session")
def nodes() -> Iterator[RayNodes]:
    """A head, and a node that is labelled as one that may be taken away."""
    found = RayNodes()
    found.add_node(market="spot")
    yield found
    found.close()


@pytest.fixture(scope="session")
def on_cluster(nodes: RayNodes, embatch: Callable[..., Any]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command with the cluster's address and token."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return embatch(*arguments, "--address", nodes.address, **{**nodes.environment(), **environment})

    return call


@pytest.fixture
def job_file(job: dict[str, Any], tmp_path: Path) -> Path:
    """The job as a file; its name is of the test, so that no other test's attempts count."""
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**job, "name": tmp_path.name[:40], "cluster": {"device": "cpu", "replicas": 1}}))
    return path
