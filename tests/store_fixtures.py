"""Fixtures for tests that need a store: a real S3 server on loopback behind the fault proxy, and a local disk."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.storage import Store, open_store

if TYPE_CHECKING:
    from fault_proxy import FaultProxy

S3_SECRET = "canary-b41f-never-in-any-text"


@pytest.fixture(scope="session")
def s3_proxy() -> Iterator[FaultProxy]:
    """Start the server and the proxy, and point every client's environment at the proxy."""
    import s3fs
    from fault_proxy import FaultProxy
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = FaultProxy(f"http://{host}:{port}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.delenv("AWS_PROFILE", raising=False)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        patch.setattr(s3fs.S3FileSystem, "read_timeout", 3)  # stalls would take 15 s
        yield proxy
    proxy.close()
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_proxy: FaultProxy) -> Any:
    """Return a client that speaks to the server behind the proxy, unseen by its log."""
    import boto3

    return boto3.client("s3", endpoint_url=s3_proxy.upstream)


@pytest.fixture
def faults(s3_proxy: FaultProxy) -> Iterator[FaultProxy]:
    """Return the proxy with no rules and an empty log; retries do not wait, and each fault must fire."""
    import stamina

    s3_proxy.clear()
    stamina.set_testing(True, attempts=1000, cap=True)
    yield s3_proxy
    stamina.set_testing(False)
    idle = s3_proxy.clear()
    assert not idle, f"faults that never fired: {idle}"


@pytest.fixture
def bucket(s3_client: Any, faults: FaultProxy) -> str:
    """Make a fresh bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def s3_uri(bucket: str) -> str:
    """Return an output URI in a fresh bucket."""
    return f"s3://{bucket}/jobs/out"


@pytest.fixture
def s3_store(s3_uri: str) -> Store:
    """Open an empty store on S3."""
    return open_store(s3_uri)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def output_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return an output URI on each kind of store."""
    return str(tmp_path / "out") if request.param == "local" else request.getfixturevalue("s3_uri")


@pytest.fixture
def store(output_uri: str) -> Store:
    """Open an empty store of each kind."""
    return open_store(output_uri)


@pytest.fixture
def impatient_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inputs on S3 are tried once, by clients that no other test has made or gets."""
    import s3fs

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()
