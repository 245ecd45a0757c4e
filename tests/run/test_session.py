"""A cluster is looked for before it is joined, and this machine before a Ray of its own is started."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest
from samples import ROOT

from pipeline.config import ClusterConfig
from pipeline.exceptions import ConfigError
from pipeline.ray_data.session import ray_session


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]  # bound and not listening: it refuses


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("variable", [False, True], ids=["job", "RAY_ADDRESS"])
def test_an_address_where_no_ray_listens_is_refused_at_once(closed_port, monkeypatch, scheme, variable):
    address = f"{scheme}127.0.0.1:{closed_port}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    config = ClusterConfig(address="auto" if variable else address, device="cpu")
    started = time.monotonic()
    with (
        pytest.raises(ConfigError, match=f"^cluster.address: no Ray answers at {address}, .*refused"),
        ray_session(config),
    ):
        pass
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("files", "code"), [(64, 2), pytest.param(1024, 0, marks=[pytest.mark.ray, pytest.mark.slow])])
def test_too_few_open_files_are_named_before_ray_starts(job_file, files, code):
    line = f'ulimit -n {files} && exec "{sys.executable}" -m jobs.cli run {job_file}'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=200, check=False)
    assert done.returncode == code, done.stderr
    assert ("ulimit -n: 64 open files are too few for Ray; allow 1,024 or more" in done.stderr) == (code == 2)
    assert "Traceback" not in done.stderr
