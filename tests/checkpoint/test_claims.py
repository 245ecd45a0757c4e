"""Claims: a second run is refused while the first is alive, and takes over at once when it is not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from pipeline.checkpoint import claims
from pipeline.exceptions import InterruptedRunError, OutputOwnedError, StorageError
from pipeline.storage.s3 import RETRY_ATTEMPTS

NEVER = 3600.0
"""A heartbeat interval that a test must not wait for."""
SOON = 0.1


@pytest.fixture
def acquire(store):
    """Claim the test's store; whatever is claimed is released in the end."""
    with ExitStack() as stack:

        def claim(**options):
            held = claims.acquire(store, **{"interval_s": NEVER, **options})
            stack.callback(held.release, {})
            return held

        yield claim


def claim_of_another_host(store):
    """Leave the claim of a run on a host whose processes cannot be looked at."""
    owner = {
        "run": 1,
        "owner": "another",
        "host": "elsewhere",
        "boot_id": "another boot",
        "pid": 1,
        "pid_started": "1",
        "started": "2001-01-01T00:00:00+00:00",
        "versions": {},
    }
    store.create("_job/runs/000001.json", json.dumps(owner).encode())
    store.replace("_job/runs/000001.hb", b"beat 0")


def run_keys(store):
    return [stored.key.rpartition("/")[2] for stored in store.list(claims.FOLDER) if stored.key.endswith("0.json")]


def test_first_claim_is_run_one_and_names_its_process(store, acquire):
    assert acquire().run == 1

    owner = claims.latest(store)
    assert (owner.run, owner.owner != "") == (1, True)
    assert f"run 1 (pid {owner.pid} on {owner.host}" in str(owner)
    assert set(owner.versions) > {"python", "ray", "torch", "s3fs"}
    assert claims.is_alive(store, owner, NEVER)


def test_a_finished_run_is_superseded(store, acquire):
    acquire().release({"exit_code": 7})

    assert acquire().run == 2
    assert claims.report(store, 1) == {"exit_code": 7}


def test_a_live_owner_on_this_host_is_refused_at_once(store, acquire):
    acquire()

    with pytest.raises(OutputOwnedError, match=r"run 1 .*--takeover"):
        acquire()

    assert claims.latest(store).run == 1


def test_a_killed_owner_on_this_host_is_superseded_at_once(store, acquire):
    code = (
        "import os, sys; from pipeline.checkpoint import claims; from pipeline.storage import open_store;"
        "claims.acquire(open_store(sys.argv[1])); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, store.uri], check=True, timeout=60)
    assert claims.latest(store).run == 1

    assert acquire().run == 2


def test_an_owner_elsewhere_whose_heartbeat_changes_is_refused(store, acquire):
    claim_of_another_host(store)
    stop = threading.Event()

    def beat():
        beats = 0
        while not stop.wait(SOON / 4):
            beats += 1
            store.replace("_job/runs/000001.hb", b"beat %d" % beats)

    with ThreadPoolExecutor(1) as pool:
        beating = pool.submit(beat)
        try:
            with pytest.raises(OutputOwnedError, match="elsewhere"):
                acquire(interval_s=SOON * 10)
        finally:
            stop.set()
        beating.result()


def test_an_owner_elsewhere_whose_heartbeat_stands_still_is_superseded_after_three_intervals(store, acquire):
    claim_of_another_host(store)
    began = time.monotonic()

    assert acquire(interval_s=SOON).run == 2

    assert time.monotonic() - began >= claims.STALE_HEARTBEATS * SOON


def test_takeover_tells_the_older_run_that_it_lost(store, acquire):
    older = acquire(interval_s=SOON)

    newer = acquire(takeover=True)

    assert newer.run == 2
    assert older.lost.wait(10)
    assert not newer.lost.is_set()


def test_a_run_that_lost_does_not_overwrite_the_report_of_the_newer_one(store, acquire):
    older = acquire(interval_s=SOON)
    acquire(takeover=True).release({"run": 2})
    older.lost.wait(10)

    older.release({"run": 1})

    assert json.loads(store.read("_job/report.json")) == {"run": 2}
    assert claims.report(store, 1) == {"run": 1}


def test_one_of_eight_runs_started_together_gets_the_claim(store, acquire):
    def attempt(_):
        try:
            return acquire().run
        except OutputOwnedError:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [run for run in pool.map(attempt, range(8)) if run]

    assert won == [1]
    assert claims.latest(store).run == 1


def test_heartbeats_carry_what_the_run_reports(store, acquire):
    claim = acquire(interval_s=SOON)
    claim.report_with(lambda: {"rows_done": 12})

    deadline = time.monotonic() + 10
    while "rows_done" not in (claims.heartbeat(store, 1) or {}) and time.monotonic() < deadline:
        time.sleep(SOON / 2)

    assert claims.heartbeat(store, 1)["rows_done"] == 12


def test_a_run_that_fails_closes_with_its_report(store):
    claim = claims.acquire(store, interval_s=NEVER)

    with pytest.raises(InterruptedRunError), claims.held(claim, lambda error: {"error": str(error)}):
        raise InterruptedRunError("a signal came")

    assert claims.report(store, 1) == {"error": "a signal came; run the same command again to continue"}
    assert not claims.is_alive(store, claims.latest(store), NEVER)


def test_the_probe_passes_a_store_with_create_only_writes(store):
    assert claims.probe(store)
    assert claims.probe(store)


@pytest.mark.s3
def test_a_claim_whose_reply_is_lost_is_known_as_our_own(s3_store, faults):
    faults.inject("drop_reply", "PUT", r"runs/000001\.json$")

    claim = claims.acquire(s3_store, interval_s=NEVER)

    claim.release({})
    assert (claim.run, claims.latest(s3_store).run) == (1, 1)


@pytest.mark.s3
def test_the_heartbeat_outlives_a_store_that_was_away(s3_store, faults):
    away = faults.inject("status", "PUT", r"000001\.hb$", times=RETRY_ATTEMPTS)
    claim = claims.acquire(s3_store, interval_s=SOON)

    newer = claims.acquire(s3_store, takeover=True, interval_s=NEVER)

    assert claim.lost.wait(20)
    assert away.fired == RETRY_ATTEMPTS
    claim.release({})
    newer.release({})


@pytest.mark.s3
def test_a_report_that_cannot_be_written_does_not_hide_why_the_run_ended(s3_store, faults):
    claim = claims.acquire(s3_store, interval_s=NEVER)
    faults.inject("status", "PUT", "report", times=RETRY_ATTEMPTS)

    with pytest.raises(InterruptedRunError), claims.held(claim, lambda error: {}):
        raise InterruptedRunError("a signal came")


@pytest.mark.s3
def test_a_report_that_cannot_be_written_is_an_error_of_a_run_that_went_well(s3_store, faults):
    claim = claims.acquire(s3_store, interval_s=NEVER)
    faults.inject("status", "PUT", "report", times=RETRY_ATTEMPTS)

    with pytest.raises(StorageError), claims.held(claim, lambda error: {}):
        pass


def test_a_run_leaves_its_page_beside_its_report(store):
    claim = claims.acquire(store, interval_s=NEVER)

    with claims.held(claim, lambda error: {"rows": 3}, lambda report: f"<p>{report['rows']} \u2713"):
        pass

    assert store.read("_job/report.html") == store.read("_job/runs/000001.report.html") == "<p>3 \u2713".encode()


def test_a_page_that_cannot_be_made_changes_nothing(store, caplog):
    claim = claims.acquire(store, interval_s=NEVER)

    with claims.held(claim, lambda error: {"rows": 0}, lambda report: str(1 / report["rows"])):
        pass

    assert claims.report(store, 1) == {"rows": 0}
    assert "the page of run 1 was not written: ZeroDivisionError" in caplog.text


@pytest.mark.s3
def test_a_page_that_cannot_be_written_changes_nothing(s3_store, faults, caplog):
    claim = claims.acquire(s3_store, interval_s=NEVER)
    refused = faults.inject("status", "PUT", r"report\.html$", status=403)

    with claims.held(claim, lambda error: {"exit_code": 0}, lambda report: "<p>"):
        pass

    assert refused.fired == 1
    assert claims.report(s3_store, 1) == {"exit_code": 0}
    assert "the page of run 1 was not written: ConfigError" in caplog.text
