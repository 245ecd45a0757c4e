"""The development store as a user has it: started, its lines exported, a job run between two of its buckets."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest
from samples import ROOT, make_rows

from pipeline.storage import open_store

pytestmark = pytest.mark.s3

LINE = re.compile(r"^export (\w+)=(\S+)$")


@pytest.fixture
def environment(monkeypatch):
    """What the script prints, set."""
    script = [sys.executable, str(ROOT / "infra/object-store/serve.py"), "--port", "0", "corpora", "embeddings"]
    server = subprocess.Popen(script, stdout=subprocess.PIPE, text=True)
    found = {}
    for line in server.stdout:
        if line.startswith("#"):
            break
        name, value = LINE.match(line).groups()
        found[name] = value
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield found
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=20) == 0


@pytest.fixture
def filesystem(environment):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield s3fs.S3FileSystem(use_listings_cache=False)
    s3fs.S3FileSystem.clear_instance_cache()


def test_the_store_is_on_loopback(environment):
    assert environment["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")


def test_a_write_does_not_replace_what_is_there(filesystem):
    store = open_store("s3://embeddings/out")
    assert store.create("data/part-0", b"first")
    assert not store.create("data/part-0", b"second")
    assert filesystem.cat("s3://embeddings/out/data/part-0") == b"first"


@pytest.mark.ray
def test_a_job_runs_between_its_buckets(filesystem, embatch):
    lines = "".join(json.dumps(row) + "\n" for row in make_rows(0, 40))
    filesystem.pipe("s3://corpora/docs/a.jsonl", lines.encode())
    job = ["--input", "s3://corpora/docs/", "--output", "s3://embeddings/docs/", "--model", "hashing:16"]

    done = embatch("run", *job, "--set", "output.unit_rows=20", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["totals"]["rows_ok"] == 40
    assert len(filesystem.ls("s3://embeddings/docs/data")) == 2
