"""What a replica's device is said to have waited for, on a clock that the test sets."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from pipeline.ray_data import device
from pipeline.ray_data.device import Device


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(device, "time", clock)
    return clock


def encode(shared: Device, clock: Clock, begin: float, end: float) -> tuple[float, float]:
    clock.now = begin
    with shared.turn() as idle:
        clock.now = end
    return idle.starved, idle.blocked


def test_what_comes_before_the_first_turn_is_no_idling(clock):
    shared = Device(calls=2)
    with shared.call():
        assert encode(shared, clock, 100, 110) == (0, 0)


def test_a_free_call_without_a_payload_is_starved(clock):
    shared = Device(calls=2)
    with shared.call():
        encode(shared, clock, 10, 20)
        with shared.call():
            assert encode(shared, clock, 23, 30) == (3, 0)


def test_calls_that_all_commit_block_the_device(clock):
    shared = Device(calls=2)
    with ExitStack() as first:
        first.enter_context(shared.call())
        encode(shared, clock, 10, 20)
        with shared.call():
            encode(shared, clock, 20, 30)
            clock.now = 35
            first.close()
            with shared.call():
                assert encode(shared, clock, 36, 40) == (1, 5)
