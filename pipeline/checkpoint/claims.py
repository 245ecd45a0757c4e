"""Who writes this output now: numbered create-only claims, a heartbeat, and the judgement of a stale one.

Claims spare work and explain themselves to people; safety comes from create-only writes alone, and no
decision here reads a wall clock.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import failpoints
from pipeline.exceptions import DamagedOutputError, NoCreateOnlyError, OutputOwnedError, PipelineError
from pipeline.fingerprint import canonical_json
from pipeline.storage import Store

logger = logging.getLogger(__name__)

FOLDER = "_job/runs"
PROBE = "_job/probe"
_CLAIM_KEY = re.compile(rf"{FOLDER}/(\d{{6}})\.json")
HEARTBEAT_SECONDS = 10.0
STALE_HEARTBEATS = 3
Page = Callable[[dict[str, Any]], str]
"""Makes the page of a report."""
_VERSIONED = ("embatch", "ray", "pyarrow", "torch", "transformers", "tokenizers", "fsspec", "s3fs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A run's claim: which process on which boot of which host."""

    run: int
    owner: str
    host: str
    boot_id: str
    pid: int
    pid_started: str
    started: str
    versions: dict[str, str]

    def __str__(self) -> str:
        return f"run {self.run} (pid {self.pid} on {self.host}, started {self.started})"


class Claim:
    """A held claim. `lost` is set when a newer run has taken over."""

    def __init__(self, store: Store, owner: Owner, interval_s: float) -> None:
        self.run = owner.run
        self.lost = threading.Event()
        self._store, self._interval = store, interval_s
        self._stop = threading.Event()
        self._status: Callable[[], dict[str, Any]] = dict
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def report_with(self, status: Callable[[], dict[str, Any]]) -> None:
        """Write what `status` returns into each heartbeat from now on."""
        self._status = status

    def require(self) -> None:
        """Go on only while no newer run has taken over.

        Raises:
            OutputOwnedError: one has.
        """
        if self.lost.is_set():
            raise OutputOwnedError(self._store.uri, str(latest(self._store)))

    def release(self, report: dict[str, Any], page: Page | None = None) -> None:
        """Stop the heartbeat and write the run's report, which ends the claim; then, if it can be, its page."""
        self._stop.set()
        self._thread.join(timeout=2 * self._interval)
        self._close("report.json", json.dumps(report, indent=2, ensure_ascii=False).encode())
        if page is not None:
            try:
                self._close("report.html", page(report).encode())
            except Exception as error:  # noqa: BLE001 - the run is over and reported: no page is worth its exit code
                logger.warning("the page of run %d was not written: %r", self.run, error)

    def _close(self, name: str, data: bytes) -> None:
        self._store.create(_key(self.run, name), data)
        if not self.lost.is_set():
            self._store.replace(f"_job/{name}", data)

    def _beat(self) -> None:
        beats = 0
        while not self._stop.wait(self._interval if beats else 0):
            beats += 1
            try:
                self._store.replace(_key(self.run, "hb"), canonical_json({"beat": beats, **self._status()}))
                if self._store.head(_key(self.run + 1, "json")) is not None:
                    self.lost.set()
            except PipelineError as error:
                # a store that is away for a while must not end the heartbeat of a run that outlives it
                logger.warning("heartbeat %d of run %d failed: %s", beats, self.run, error)


def acquire(
    store: Store, *, owner_id: str | None = None, takeover: bool = False, interval_s: float = HEARTBEAT_SECONDS
) -> Claim:
    """Claim the output for this process, under an id that no other claim has; None: one made here.

    A finished or dead owner is superseded; a live one only with `takeover`.

    Raises:
        OutputOwnedError: another run is alive, or won the race.
    """
    last = latest(store)
    if last is not None and not takeover and is_alive(store, last, interval_s):
        raise OutputOwnedError(store.uri, str(last))
    owner = _this_process(1 if last is None else last.run + 1, owner_id or uuid.uuid4().hex)
    if not store.create(_key(owner.run, "json"), canonical_json(asdict(owner))):
        winner = latest(store)
        if winner is None or winner.owner != owner.owner:
            raise OutputOwnedError(store.uri, str(winner))
    failpoints.hit("claim.after_create")
    return Claim(store, owner, interval_s)


def probe(store: Store) -> bool:
    """Tell whether the store enforces create-only writes; leaves one small object behind, once."""
    store.create(PROBE, b"probe")
    return not store.create(PROBE, b"probe")


def require_create_only(store: Store) -> None:
    """Refuse a store that does not enforce create-only writes.

    Raises:
        NoCreateOnlyError: it replaced an object that was to be created once.
    """
    if not probe(store):
        raise NoCreateOnlyError(store.uri)


def latest(store: Store) -> Owner | None:
    """Return the newest claim, alive or not.

    Raises:
        DamagedOutputError: it is not what was written.
    """
    runs = [int(match[1]) for stored in store.list(FOLDER) if (match := _CLAIM_KEY.fullmatch(stored.key))]
    key = _key(max(runs), "json") if runs else None
    data = store.read(key) if key else None
    if data is None:
        return None
    try:
        values = json.loads(data)
        owner = Owner(**{kept.name: values[kept.name] for kept in fields(Owner)})  # what later versions add is theirs
    except (KeyError, TypeError, ValueError) as error:
        what = f"{key} is not a claim ({error!r}); remove it if no run is alive"
        raise DamagedOutputError(store.uri, [what]) from error
    if owner.run != max(runs):
        raise DamagedOutputError(store.uri, [f"{key} says run {owner.run}; remove it if no run is alive"])
    return owner


def heartbeat(store: Store, run: int) -> dict[str, Any] | None:
    """Return what a run last reported of itself.

    Raises:
        DamagedOutputError: it is not what was written.
    """
    return _said(store, _key(run, "hb"))


def report(store: Store, run: int) -> dict[str, Any] | None:
    """Return the closing report of a run; None where it did not close.

    Raises:
        DamagedOutputError: it is not what was written.
    """
    return _said(store, _key(run, "report.json"))


def _said(store: Store, key: str) -> dict[str, Any] | None:
    data = store.read(key)
    try:
        return None if data is None else dict(json.loads(data))
    except (TypeError, ValueError) as error:
        what = f"{key} is not what a run wrote of itself ({error!r}); remove it if no run is alive"
        raise DamagedOutputError(store.uri, [what]) from error


def is_alive(store: Store, owner: Owner, interval_s: float = HEARTBEAT_SECONDS) -> bool:
    """Judge a claim: at once on the same boot of the same host, else by whether its heartbeat changes."""
    if store.head(_key(owner.run, "report.json")) is not None:
        return False
    if owner.boot_id and owner.boot_id == _boot_id():
        return _process_started(owner.pid) == owner.pid_started
    before = store.head(_key(owner.run, "hb"))
    deadline = time.monotonic() + STALE_HEARTBEATS * interval_s
    while time.monotonic() < deadline:
        time.sleep(interval_s / 2)
        if store.head(_key(owner.run, "hb")) != before:
            return True
    return False


@contextmanager
def held(
    claim: Claim, closing: Callable[[BaseException | None], dict[str, Any]], page: Page | None = None
) -> Iterator[Claim]:
    """Hold a claim for a block; its report and page are written however the block ends.

    A report that cannot be written never hides why the block ended.
    """
    try:
        yield claim
    except BaseException as error:
        try:
            claim.release(closing(error), page)
        except PipelineError as unwritten:
            logger.warning("the report of run %d was not written: %s", claim.run, unwritten)
        raise
    claim.release(closing(None), page)


def _key(run: int, suffix: str) -> str:
    return f"{FOLDER}/{run:06d}.{suffix}"


def versions() -> dict[str, str]:
    """Return the versions of this process that decide how an output is made."""
    return {"python": platform.python_version(), **{name: version(name) for name in _VERSIONED}}


def _this_process(run: int, owner_id: str) -> Owner:
    return Owner(
        run=run,
        owner=owner_id,
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid=os.getpid(),
        pid_started=_process_started(os.getpid()),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
    )


def _boot_id() -> str:
    """Name this boot and process namespace: within them a process id says who is alive."""
    path = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    return f"{path.read_text(encoding='ascii').strip()} {namespace.readlink()}" if path.exists() else ""


def _process_started(pid: int) -> str:
    """Return the start time of a living process in clock ticks since boot; "" where there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if status[0] == "Z" else status[19]
