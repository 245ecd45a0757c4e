"""Fixtures several test files share: a small corpus, a job over it, and the command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import ROOT, make_rows, write_jsonl

from pipeline.encoders import precision

if TYPE_CHECKING:
    from openai_server import EmbeddingsServer

pytest_plugins = ["store_fixtures"]

if not precision.nvidia_driver():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, by whichever test comes first


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three files of 100 rows each: Parquet, JSON Lines, and JSON Lines in gzip."""
    folder = tmp_path / "corpus"
    write_jsonl(folder / "a.jsonl", make_rows(0, 100))
    write_jsonl(folder / "b.jsonl.gz", make_rows(100, 100))
    pq.write_table(pa.Table.from_pylist(make_rows(200, 100)), folder / "c.parquet")
    return folder


@pytest.fixture
def job(corpus: Path, tmp_path: Path) -> dict[str, Any]:
    """A job over the corpus with the hashing encoder, 12 units."""
    return {
        "input": {"uri": str(corpus), "keep": ["year"]},
        "encoder": {"model": "hashing:16"},
        "output": {"uri": str(tmp_path / "out"), "unit_rows": 25},
    }


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
