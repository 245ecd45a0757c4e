"""A whole run from S3 to S3 while requests fail: the proxy's log is the witness that nothing was written twice."""

from __future__ import annotations

import gzip
import io
import json
import math
import re
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import make_rows
from store_fixtures import S3_SECRET

from pipeline.config import parse_job
from pipeline.job import run

pytestmark = [pytest.mark.ray, pytest.mark.s3]

FILES = {"a.jsonl.gz": make_rows(0, 60), "b.parquet": make_rows(60, 60)}
EXPECTED_OBJECTS = [
    r"_dead/part-00000000-[0-9a-f]{12}\.parquet",
    r"_job/manifest\.json",
    r"_job/manifest/part-00000-[0-9a-f]{12}\.parquet",
    r"_job/plan\.json",
    r"_job/plan/part-00000-[0-9a-f]{12}\.parquet",
    r"_job/probe",
    r"_job/receipts/000001-000000-\w{12}\.json",
    r"_job/report\.html",
    r"_job/report\.json",
    r"_job/runs/000001\.hb",
    r"_job/runs/000001\.json",
    r"_job/runs/000001\.report\.html",
    r"_job/runs/000001\.report\.json",
    *(rf"data/part-0000000{unit}-[0-9a-f]{{12}}\.parquet" for unit in range(6)),
]


@pytest.fixture
def config(bucket, s3_client):
    """A job of six units over a gzip and a Parquet file; the second row has no text."""
    lines = [{**row, "text": ""} if row["id"] == "row-1" else row for row in FILES["a.jsonl.gz"]]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(FILES["b.parquet"]), sink)
    bodies = {
        "a.jsonl.gz": gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()),
        "b.parquet": sink.getvalue(),
    }
    for name, body in bodies.items():
        s3_client.put_object(Bucket=bucket, Key=f"corpus/{name}", Body=body)
    return parse_job(
        {
            "input": {"uri": f"s3://{bucket}/corpus", "keep": ["year"]},
            "encoder": {"model": "hashing:32"},
            "output": {"uri": f"s3://{bucket}/jobs/out", "unit_rows": 20},
            "cluster": {"address": "local", "device": "cpu", "replicas": 1},
        }
    )


@pytest.fixture
def objects(bucket, s3_client):
    """Read the whole output, unseen by the proxy's log: key -> (ETag, bytes)."""

    def read():
        listed = s3_client.list_objects_v2(Bucket=bucket, Prefix="jobs/out/")["Contents"]
        found = {}
        for entry in listed:
            body = s3_client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
            found[entry["Key"].removeprefix("jobs/out/")] = (entry["ETag"], body)
        return found

    return read


def row_keys(found):
    tables = [pq.read_table(io.BytesIO(body)) for key, (_, body) in found.items() if key.startswith("data/")]
    table = pa.concat_tables(tables)
    return sorted(zip(table["source_file"].to_pylist(), table["source_row"].to_pylist(), strict=True))


def test_a_run_between_buckets_outlives_faults_and_writes_each_shard_once(config, faults, objects, bucket, caplog):
    faults.inject("status", "GET", "corpus/", status=503)
    faults.inject("status", "PUT", "data/part-00000001", status=500)
    faults.inject("drop_reply", "PUT", "data/part-00000002")
    faults.inject("status", "PUT", "data/part-00000004", status=409)
    faults.inject("drop_reply", "PUT", r"_job/manifest\.json")
    lagging = faults.inject("omit", "LIST", "data/part-00000003", times=math.inf)

    report = run(config)

    assert (report.complete, report.exit_code, report.error) == (True, 0, None)
    assert (report.totals["units"], report.totals["rows_ok"], report.totals["dead_by_code"]) == (6, 119, {"EMPTY": 1})
    found = objects()
    assert len(found) == len(EXPECTED_OBJECTS)
    assert all(map(re.fullmatch, EXPECTED_OBJECTS, sorted(found)))
    assert row_keys(found) == [(name, row) for name in FILES for row in range(60) if (name, row) != ("a.jsonl.gz", 1)]
    assert not [key for key, (_, body) in found.items() if S3_SECRET.encode() in body]
    assert S3_SECRET not in caplog.text

    lagging.times = 0
    again = run(config)

    assert (again.complete, again.run, again.content_digest) == (True, None, report.content_digest)
    assert objects() == found
    data_puts = faults.log("PUT", "jobs/out/data/", bucket=bucket)
    assert {line.if_none_match for line in data_puts} == {"*"}
    assert Counter(line.status for line in data_puts) == {200: 6, 412: 1, None: 2}
    assert {line.key.removeprefix("jobs/out/"): line.etag for line in data_puts if line.status == 200} == {
        key: etag for key, (etag, _) in found.items() if key.startswith("data/")
    }
    assert faults.log("DELETE", bucket=bucket) == []
    assert faults.log("POST", bucket=bucket) == []
