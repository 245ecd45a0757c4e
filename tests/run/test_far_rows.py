"""On the way to rows far inside a file that has to be read from its beginning, a read task gives signs of life."""

from __future__ import annotations

import threading
import time
from itertools import count
from types import SimpleNamespace

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from made_outputs import job, lines

from pipeline import plan as plans
from pipeline.encoders import precision
from pipeline.exceptions import StallError
from pipeline.ray_data import payload, reporting
from pipeline.ray_data.order import make_order
from pipeline.ray_data.reading import read_units
from pipeline.ray_data.watchdog import Watchdog

STALL_SECONDS = 0.4
READ_SECONDS = 0.02


class _Slow(LocalFileOpener):
    def read(self, size=-1):
        time.sleep(READ_SECONDS)
        return self.f.read(min(size, 64) if size > 0 else size)

    def readinto(self, buffer):
        time.sleep(READ_SECONDS)
        return self.f.readinto(memoryview(buffer)[:64])


class SlowFiles(LocalFileSystem):
    """A disk that gives 64 bytes at a time, some dozen times a second."""

    protocol = "slow"
    slow = False

    def _open(self, path, mode="rb", **_):
        return (_Slow if self.slow else LocalFileOpener)(path, mode, fs=self)


@pytest.fixture
def last_unit(tmp_path, monkeypatch):
    """Plan a file at full speed; its orders and its last unit, a dozen stalls from its beginning on the slow disk."""
    fsspec.register_implementation("slow", SlowFiles, clobber=True)
    monkeypatch.setattr(reporting, "INTERVAL_SECONDS", 0.1)

    def make(name, data):
        (tmp_path / name).write_bytes(data)
        config = job(f"slow://{tmp_path / name}", tmp_path / "out")
        plan = plans.make_plan(config, precision.detect("cpu"))
        monkeypatch.setattr(SlowFiles, "slow", True)
        return make_order(config, plan, threads=1, skip_changed=False, log=None), plan.units[-1]

    return make


def read_watched(order, unit, ledger):
    """Read a unit in a thread, while a watchdog looks at the signs that came."""
    rows, signs = [], count()
    ledger.advance = SimpleNamespace(remote=lambda *_: ledger.moves.append(next(signs)))
    batch = pa.table({"units": [[unit.to_json()]]})
    reading = threading.Thread(target=lambda: rows.extend(read_units(batch, order, ledger)))
    reading.start()
    watchdog, began = Watchdog(STALL_SECONDS, time.monotonic()), time.monotonic()
    try:
        while reading.is_alive():
            watchdog.look(time.monotonic(), len(ledger.moves) if ledger.told else 0, [])
            time.sleep(0.02)
    finally:
        reading.join()
    return rows[0], time.monotonic() - began


def gzipped(rows):
    return pa.compress(lines(0, rows), codec="gzip", asbytes=True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzipped(500)),
        ("a.jsonl.zst", pa.compress(lines(0, 700), codec="zstd", asbytes=True)),
    ],
)
def test_a_slow_way_to_far_rows_is_no_stall(last_unit, name, data):
    order, unit = last_unit(name, data)
    row, seconds = read_watched(order, unit, SimpleNamespace(moves=[], told=True))
    assert row.column("error")[0].as_py() is None
    assert len(payload.from_row(row).ids) == unit.rows
    assert seconds > 2 * STALL_SECONDS
    with pytest.raises(StallError):
        read_watched(order, unit, SimpleNamespace(moves=[], told=False))
