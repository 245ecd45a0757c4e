"""The parts of a hosted encoder that need no server: requests are filled, rates kept, replies believed, keys read."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import RemoteConfig
from pipeline.encoders.remote.batches import cut, most_tokens, typical_tokens
from pipeline.encoders.remote.credentials import read_key
from pipeline.encoders.remote.failures import read_failure
from pipeline.encoders.remote.pace import Allowance, Pace, duration, told_pause
from pipeline.encoders.remote.replies import Expected, MalformedReplyError, parse
from pipeline.exceptions import ConfigError, ModelError

EXPECTED = Expected(model="m", reply_model="m", dimension=2)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 7), st.integers(1, 30))
def test_requests_hold_every_text_once_in_order_within_both_limits(sizes, items, tokens):
    runs = list(cut(sizes, items, tokens))
    assert [row for run in runs for row in run] == list(range(len(sizes)))
    for run in runs:
        assert 1 <= len(run) <= items
        assert len(run) == 1 or sum(most_tokens(sizes[row]) for row in run) <= tokens


def test_requests_are_as_few_as_the_limits_allow():
    assert [len(run) for run in cut([10] * 10, 4, 1000)] == [4, 4, 2]
    assert [len(run) for run in cut([10] * 10, 100, 15)] == [3, 3, 3, 1]
    assert [len(run) for run in cut([10, 999, 10], 100, 15)] == [1, 1, 1]


def test_an_estimate_is_never_nothing():
    assert [typical_tokens(size) for size in (0, 1, 4, 5, 400)] == [1, 1, 1, 2, 100]
    assert [most_tokens(size) for size in (0, 1, 2, 3, 400)] == [1, 1, 1, 2, 200]


DURATIONS = {"1s": 1, "6m0s": 360, "20ms": 0.02, "1h2m3.5s": 3723.5, "17": 17, "0": 0, "2m": 120, "1d": 86_400}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_durations_are_read_as_the_apis_write_them(text, seconds):
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "m", None, "nan", "1..2s", "s", "-"])
def test_what_is_no_duration_says_nothing(text):
    assert duration(text) is None


def test_a_refusal_says_how_long_to_wait_in_one_of_three_ways():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert told_pause({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert told_pause({"retry-after": "1.5"}) == 1.5
    assert told_pause({"retry-after": date}) == pytest.approx(30, abs=2)
    used_up = {
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
        "x-ratelimit-reset-requests": "1h",
    }
    assert told_pause(used_up) == 360
    assert told_pause({}) is None
    assert told_pause({"retry-after": "later"}) is None


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_allowance_fills_up_evenly_and_never_beyond_its_limit():
    bucket = Allowance()
    assert bucket.wait_s(10**9, 100.0) == 0, "unknown is unlimited"
    bucket.learn(limit=1000, left=0, full_in_s=10, now=100.0)
    assert bucket.wait_s(500, 100.0) == pytest.approx(5)
    assert bucket.wait_s(500, 106.0) == 0
    assert bucket.wait_s(5000, 100.0) == pytest.approx(10), "more than all waits for a full one"
    bucket.take(1000, 120.0)
    assert bucket.wait_s(100, 120.0) == pytest.approx(1)


def limits(left: int, reset: str, *, limit: int = 1000) -> dict[str, str]:
    return {
        "x-ratelimit-limit-tokens": str(limit),
        "x-ratelimit-remaining-tokens": str(left),
        "x-ratelimit-reset-tokens": reset,
    }


def test_a_request_that_fits_in_what_is_left_does_not_wait():
    clock = Clock()
    pace = Pace(clock)
    pace.enter(100)
    pace.leave(100, limits(900, "1s"))
    pace.enter(900)
    assert pace.waited_s == 0


@pytest.mark.parametrize(
    "headers", [limits(-1, "0", limit=-1), limits(0, "0", limit=0), {"x-ratelimit-limit-tokens": "x"}]
)
def test_headers_that_say_nothing_are_not_heeded(headers):
    pace = Pace(Clock())
    pace.enter(10)
    pace.leave(10, headers)
    pace.enter(10**6)
    assert pace.waited_s == 0


def test_what_others_have_in_flight_is_not_taken_twice():
    pace = Pace(Clock())
    pace.enter(600)
    pace.enter(100)
    pace.leave(100, limits(900, "1s"))
    assert pace._pause(300) == 0
    assert pace._pause(400) == pytest.approx(1), "600 of the 900 are spoken for"


def reply(entries: list[tuple[int, list[float]]], **changes: object) -> bytes:
    data = [
        {"index": index, "embedding": base64.b64encode(np.array(vector, "<f4").tobytes()).decode()}
        for index, vector in entries
    ]
    return json.dumps({"model": "m", "data": data, "usage": {"prompt_tokens": 3}, **changes}).encode()


def test_vectors_are_put_in_order_by_their_index_bit_by_bit():
    values = np.array([[0.1, -1e-42], [3.4e38, 1 / 3]], np.float32)
    found = parse(reply([(1, values[1]), (0, values[0])]), 2, EXPECTED)
    assert found.vectors.tobytes() == values.tobytes()
    assert found.tokens == 3


def test_lists_of_numbers_are_taken_too():
    found = parse(reply([], data=[{"index": 0, "embedding": [0.5, 0.25]}]), 1, EXPECTED)
    assert found.vectors.tolist() == [[0.5, 0.25]]


def odd(one: object, other: object) -> bytes:
    return reply([], data=[{"index": 0, "embedding": one}, {"index": 1, "embedding": other}])


ONE, OTHER = (0, [1.0, 2.0]), (1, [3.0, 4.0])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is cut"),
        (reply([ONE, OTHER])[:-9], "is cut"),
        (b"[]", "is not a reply"),
        (reply([ONE, OTHER], usage={}), "is not a reply"),
        (reply([ONE, OTHER], usage={"prompt_tokens": "3"}), "prompt_tokens"),
        (reply([ONE, OTHER], usage={"prompt_tokens": True}), "prompt_tokens"),
        (reply([ONE]), "1 vectors for 2 texts"),
        (reply([ONE, OTHER, OTHER]), "3 vectors for 2 texts"),
        (reply([ONE, ONE]), "an index is missing or stands twice"),
        (reply([ONE, (2, [3.0, 4.0])]), "an index is missing or stands twice"),
        (reply([ONE, (-1, [3.0, 4.0])]), "an index is missing or stands twice"),
        (odd("AAA", "AAAA"), "a vector that is neither"),
        (odd("AAAAAA==", "!"), "a vector that is neither"),
        (odd([1.0, "x"], []), "a vector that is neither"),
        (odd(None, None), "a vector without numbers"),
        (reply([ONE, (1, [])]), "a vector without numbers"),
    ],
)
def test_a_reply_that_is_not_whole_is_not_believed(content, reason):
    with pytest.raises(MalformedReplyError, match=reason):
        parse(content, 2, EXPECTED)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (reply([ONE, OTHER], model="n"), "answers as model 'n', planned was 'm'"),
        (reply([ONE, OTHER], model=None), "answers as model 'None'"),
        (reply([ONE, (1, [1.0])]), "1 numbers a vector, 2 were expected"),
        (reply([(0, [1.0] * 3), (1, [1.0] * 3)]), "3 numbers a vector, 2 were expected"),
    ],
)
def test_a_reply_of_something_else_ends_the_run(content, reason):
    with pytest.raises(ModelError, match=reason):
        parse(content, 2, EXPECTED)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"error": {"message": "too long", "code": "c"}}, "too long"),
        ({"error": "too long", "error_type": "Validation"}, "too long"),
        ({"message": "too long"}, "too long"),
        ({"detail": [{"msg": "too long"}]}, '[{"msg": "too long"}]'),
        ({"error": {"message": "bad\n key sk-1"}}, "bad key ***"),
        (["x" * 900], '["' + "x" * 198),
    ],
)
def test_what_an_api_says_is_repeated_short_and_without_the_key(content, said):
    assert read_failure("u", 400, json.dumps(content).encode(), "sk-1").said == said


def test_a_page_of_a_proxy_is_repeated_too():
    assert read_failure("u", 502, b"<html>\n Bad \xff Gateway", None).said == "<html> Bad \ufffd Gateway"


def remote(**keys: object) -> RemoteConfig:
    return RemoteConfig(base_url="http://localhost:1/v1", **keys)


def test_a_key_comes_from_the_environment_or_a_file(monkeypatch, tmp_path):
    monkeypatch.setenv("A_KEY", " sk-1\n")
    (tmp_path / "key").write_text("sk-2\n")
    assert read_key(remote(api_key_env="A_KEY")) == "sk-1"
    assert read_key(remote(api_key_file=str(tmp_path / "key"))) == "sk-2"
    assert read_key(remote()) is None


def test_a_key_that_is_missing_or_none_is_named_and_not_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("A_KEY", "sk 5ecret")
    for name, content in (
        ("none", b""),
        ("bytes", b"\xff5ecret"),
        ("quoted", b'"5ecret"'),
        ("lines", b"5ecret\n5ecret"),
    ):
        (tmp_path / name).write_bytes(content)
    places = [{"api_key_file": str(tmp_path / name)} for name in ("none", "bytes", "quoted", "lines", "absent")]
    for place in ({"api_key_env": "A_KEY"}, {"api_key_env": "NOT_SET"}, *places):
        with pytest.raises(ConfigError) as caught:
            read_key(remote(**place))
        assert caught.value.key == f"encoder.remote.{next(iter(place))}"
        assert "5ecret" not in str(caught.value)
        assert caught.value.__cause__ is None
