"""The hashing encoder's name: what it takes, and that a delay changes no vector."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.encoders.hashing import HashingEncoder, resolve
from pipeline.exceptions import ConfigError


def test_a_delay_is_recorded_and_changes_no_vector():
    slow = resolve("hashing:8?delay_ms_per_1000_rows=1", "p ")
    fast = resolve("hashing:8", "p ")
    assert slow.identity()["model"] == "hashing:8?delay_ms_per_1000_rows=1"
    vectors = [HashingEncoder(spec).encode(HashingEncoder(spec).prepare(["a", "b"])) for spec in (slow, fast)]
    np.testing.assert_array_equal(*vectors)


def test_a_truncated_vector_is_that_of_fewer_dimensions():
    specs = resolve("hashing:64", "", 8), resolve("hashing:8", "")
    vectors = [HashingEncoder(spec).encode(HashingEncoder(spec).prepare(["a", "b"])) for spec in specs]
    np.testing.assert_array_equal(*vectors)
    with pytest.raises(ConfigError, match=r"encoder\.truncate_dim: 65 is more than the 64 numbers"):
        resolve("hashing:64", "", 65)


@pytest.mark.parametrize(
    "model",
    ["hashing:", "hashing:0", "hashing:8193", "hashing:8?", "hashing:8?delay=1", "hashing:8?delay_ms_per_1000_rows=-1"],
)
def test_other_names_are_refused(model):
    with pytest.raises(ConfigError, match="write hashing:DIMENSION"):
        resolve(model, "")
