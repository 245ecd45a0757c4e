"""When a run ends at once, and when what is in flight may finish."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from pipeline.config import LimitsConfig
from pipeline.exceptions import InterruptedRunError, LimitReachedError
from pipeline.ray_data.ledger import Ledger
from pipeline.stopping import Stop

FIRST, SECOND = InterruptedRunError("the first"), InterruptedRunError("the second")


def make_stop(age_s: float = 0, **limits: object) -> Stop:
    """A stop of a command that began so many seconds ago."""
    return Stop(LimitsConfig(**limits), time.monotonic() - age_s)


def test_a_signal_before_units_are_in_flight_ends_the_run_at_once():
    with pytest.raises(InterruptedRunError, match="the first"):
        make_stop().ask(FIRST)


def test_a_signal_whose_error_was_swallowed_is_not_lost():
    stop = make_stop()
    with suppress(InterruptedRunError):
        stop.ask(FIRST)
    with pytest.raises(InterruptedRunError, match="the first"):
        stop.look()
    with stop.encoding():
        stop.look()
        assert stop.cause is FIRST


def test_the_first_signal_lets_units_in_flight_finish_and_the_second_does_not():
    stop = make_stop()
    with stop.encoding():
        stop.ask(FIRST)
        assert stop.cause is FIRST
        with pytest.raises(InterruptedRunError, match="the second"):
            stop.ask(SECOND)


def test_without_grace_the_first_signal_ends_the_run():
    stop = make_stop(grace_seconds=0)
    with stop.encoding(), pytest.raises(InterruptedRunError, match="the first"):
        stop.ask(FIRST)


def test_a_signal_after_a_limit_leaves_the_grace_time_and_another_does_not():
    stop = make_stop(age_s=60, deadline="1m")
    with stop.encoding():
        stop.look()
        stop.ask(FIRST)
        assert isinstance(stop.cause, LimitReachedError)
        with pytest.raises(InterruptedRunError, match="the second"):
            stop.ask(SECOND)


def test_a_signal_while_the_manifest_is_made_ends_the_run():
    stop = make_stop()
    with stop.encoding():
        pass
    with pytest.raises(InterruptedRunError, match="the first"):
        stop.ask(FIRST)


def test_a_deadline_that_passed_before_the_first_unit_ends_the_run():
    with pytest.raises(LimitReachedError, match=r"limits\.deadline=1m is reached; run the same command again"):
        make_stop(age_s=60, deadline="1m").look()


@pytest.mark.parametrize(
    ("limits", "tokens"), [({}, 10**9), ({"deadline": "1h"}, 10**9), ({"max_tokens": 100}, 99)], ids=str
)
def test_a_limit_that_is_not_reached_changes_nothing(limits, tokens):
    stop = make_stop(age_s=60, **limits)
    with stop.encoding():
        stop.look(tokens)
        assert stop.cause is None


def test_as_many_tokens_as_allowed_end_admission():
    stop = make_stop(max_tokens=100)
    with stop.encoding():
        stop.look(100)
        assert str(stop.cause) == "limits.max_tokens=100 is reached; run the same command again to continue"


def test_a_cost_ends_admission_and_says_that_only_a_higher_one_continues():
    stop = make_stop(max_cost=0.5)
    with stop.encoding():
        stop.look(10**9, 0.49)
        assert stop.cause is None
        stop.look(10**9, 0.5)
        assert str(stop.cause).startswith("limits.max_cost=0.5 is reached by this output; set a higher one to continue")
        assert stop.cause.exit_code == 8


def test_no_limit_keeps_what_is_encoded_from_being_published():
    stop = make_stop(age_s=60, deadline="1m", max_tokens=1)
    with stop.encoding():
        pass
    stop.look(5)


def test_a_closed_ledger_admits_no_unit_and_forgets_one_that_lost_its_worker():
    ledger = Ledger()
    assert (ledger.begin(1, "a"), ledger.begin(2, "b")) == (1, 1)
    ledger.close()
    assert (ledger.begin(2, "c"), ledger.begin(3, "d")) == (0, 0)
    ledger.end(1)
    pulse = ledger.pulse()
    assert (pulse.active, pulse.ended, pulse.closed) == ({}, 1, True)


def test_a_call_that_comes_again_is_the_same_attempt():
    ledger = Ledger()
    assert [ledger.begin(1, call) for call in "aabba"] == [1, 1, 2, 2, 3]
    assert ledger.pulse().lost == {1: (2, "")}
