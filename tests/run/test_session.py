"""A cluster is looked for before it is joined."""

from __future__ import annotations

import socket
import time

import pytest

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
