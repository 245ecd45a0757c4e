"""What S3 does on bad days, done to the store by the fault proxy."""

from __future__ import annotations

import math
import traceback

import pytest
from moto.s3.models import s3_backends
from store_fixtures import S3_SECRET

from pipeline.checkpoint import claims
from pipeline.exceptions import ConfigError, NoCreateOnlyError, StorageError
from pipeline.storage import open_store
from pipeline.storage.s3 import RETRY_ATTEMPTS

pytestmark = pytest.mark.s3

KEY = "data/part-00000000-0123456789ab.parquet"
ALWAYS = math.inf
CALLS = {
    "PUT": lambda store: store.create("data/new", b"new"),
    "GET": lambda store: store.read(KEY),
    "HEAD": lambda store: store.head(KEY),
    "LIST": lambda store: store.list("data"),
    "DELETE": lambda store: store.delete(KEY),
}


@pytest.fixture
def store(s3_uri):
    return open_store(s3_uri)


@pytest.fixture
def published(store, faults):
    """Publish one object, then forget the requests that took."""
    store.create(KEY, b"published" * 1000)
    faults.clear()
    return store


def test_lost_reply_to_a_create_reads_as_taken_by_our_own_bytes(store, faults):
    faults.inject("drop_reply", "PUT", KEY)

    assert store.create(KEY, b"ours") is False

    assert store.read(KEY) == b"ours"
    assert [line.status for line in faults.log("PUT")] == [200, 412]
    assert {line.if_none_match for line in faults.log("PUT")} == {"*"}


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("status", [500, 503])
def test_every_call_outlives_three_server_errors(published, faults, operation, status):
    expected = CALLS[operation](published) if operation in ("GET", "HEAD", "LIST") else None
    faults.clear()
    faults.inject("status", operation, times=3, status=status)

    answer = CALLS[operation](published)

    assert answer == expected or (operation, answer) == ("PUT", True)
    assert len(faults.log(operation)) == 4


def test_conflict_with_a_racing_request_is_tried_again(store, faults):
    faults.inject("status", "PUT", status=409)

    assert store.create(KEY, b"ours")

    assert [line.status for line in faults.log("PUT")] == [None, 200]


@pytest.mark.parametrize("operation", ["PUT", "GET", "LIST"])
def test_a_store_that_stays_away_ends_in_a_storage_error_after_bounded_tries(published, faults, operation):
    faults.inject("status", operation, times=ALWAYS)

    with pytest.raises(StorageError, match="jobs/out/data") as raised:
        CALLS[operation](published)

    assert len(faults.log(operation)) == RETRY_ATTEMPTS
    assert raised.value.exit_code == 9


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("operation", CALLS)
def test_denied_permission_names_the_path_at_once_and_no_secret(published, faults, operation, status):
    faults.inject("status", operation, times=ALWAYS, status=status)

    with pytest.raises(ConfigError, match="jobs/out/data") as raised:
        CALLS[operation](published)

    assert len(faults.log(operation)) == 1
    assert S3_SECRET not in "".join(traceback.format_exception(raised.value))


def test_missing_bucket_is_named(faults):
    store = open_store("s3://no-such-bucket-here/out")

    for call in (lambda: store.read(KEY), lambda: store.create(KEY, b"x"), lambda: store.list("")):
        with pytest.raises(ConfigError, match="no such bucket: 'no-such-bucket-here'"):
            call()


def test_impossible_bucket_is_refused_without_a_request(faults):
    with pytest.raises(ConfigError, match="not a valid name"):
        open_store("s3://no bucket/out").read(KEY)
    with pytest.raises(ConfigError, match="names no bucket"):
        open_store("s3://")

    assert faults.log() == []


@pytest.mark.parametrize("action", ["truncate", "short", "stall"])
def test_a_body_that_breaks_off_is_read_again(published, faults, action):
    faults.inject(action, "GET", KEY)

    assert published.read(KEY) == b"published" * 1000

    assert len(faults.log("GET", KEY)) == 2


def test_a_body_that_always_breaks_off_is_an_error_not_data(published, faults):
    faults.inject("short", "GET", KEY, times=ALWAYS)

    with pytest.raises(StorageError, match=KEY):
        published.read(KEY)


def test_an_object_is_read_in_one_request(store, faults):
    store.create(KEY, bytes(20 << 20))
    faults.clear()

    assert len(store.read(KEY)) == 20 << 20

    assert [line.operation for line in faults.log()] == ["GET"]


def test_a_store_that_ignores_conditions_is_found_out(store, faults):
    faults.inject("strip", "PUT", times=ALWAYS)

    assert not claims.probe(store)
    with pytest.raises(NoCreateOnlyError, match="jobs/out"):
        claims.require_create_only(store)


def test_a_store_that_honours_conditions_passes_the_probe_again_and_again(store, faults):
    faults.inject("drop_reply", "PUT", claims.PROBE, times=2)

    assert claims.probe(store)
    assert claims.probe(store)


def test_a_412_that_names_no_condition_means_taken(published, faults):
    faults.inject("anonymous_412", "PUT")

    assert published.create(KEY, b"second") is False


def test_a_put_that_arrives_late_changes_nothing(store, faults):
    held = faults.inject("hold", "PUT", KEY)
    store.create(KEY, b"the next try")

    assert faults.release(held) == [412]

    assert store.read(KEY) == b"the next try"


def test_listing_of_many_pages_is_complete_though_a_page_fails(store, faults, bucket):
    backend = s3_backends["123456789012"]["aws"]
    keys = [f"data/part-{number:05d}" for number in range(1100)]
    for key in keys:
        backend.put_object(bucket, f"jobs/out/{key}", b"x")
    faults.inject("status", "LIST", after=1)

    assert [stored.key for stored in store.list("data")] == keys

    assert [line.status for line in faults.log("LIST")] == [200, None, 200]


def test_a_folder_made_in_a_console_is_no_object(store, s3_client, bucket):
    s3_client.put_object(Bucket=bucket, Key="jobs/out/", Body=b"")

    assert store.list("") == []


def test_a_page_is_one_to_a_browser(store, s3_client, bucket):
    store.create("_job/runs/000001.report.html", b"<p>")
    store.create("data/part-00000000.parquet", b"PAR1")
    listed = s3_client.list_objects_v2(Bucket=bucket)["Contents"]
    types = {it["Key"][-4:]: s3_client.head_object(Bucket=bucket, Key=it["Key"])["ContentType"] for it in listed}
    assert types["html"] == "text/html"
