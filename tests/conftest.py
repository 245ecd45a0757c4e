"""Fixtures several test files share: a small corpus, a job over it, and the command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from samples import ROOT, job_over, write_corpus

from pipeline.encoders import precision

if TYPE_CHECKING:
    from openai_server import EmbeddingsServer

pytest_plugins = ["store_fixtures"]

if not precision.nvidia_driver():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, by whichever test comes first


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three files of 100 rows each, one a format."""
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def job(corpus: Path, tmp_path: Path) -> dict[str, Any]:
    """A job over the corpus with the hashing encoder, 12 units."""
    return job_over(corpus, tmp_path / "out")


@pytest.fixture(scope="session")
def embatch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command as a process of its own."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs.cli", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
            timeout=240,
            check=False,
        )

    return call


@pytest.fixture
def server() -> Iterator[EmbeddingsServer]:
    """An embeddings API over HTTP that a test may have fail."""
    from openai_server import serving  # torch, for the few tests that ask

    with serving() as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def quiet_ray() -> Iterator[None]:
    """Runs of these tests start their own Ray; none is joined by accident."""
    address = os.environ.pop("RAY_ADDRESS", None)
    yield
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
