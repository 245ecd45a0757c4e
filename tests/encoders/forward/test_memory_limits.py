"""A device that runs out of memory: the budget halves for the rest of the texts, and no text is lost."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.encoders import hashing
from pipeline.encoders.base import PreparedTexts, Progress
from pipeline.encoders.forward.batching import packed_batches
from pipeline.encoders.forward.transformer import TransformerEncoder
from pipeline.exceptions import ModelError

LENGTHS = np.array([3, 8, 1, 5, 8, 2, 7], np.int32)


class SmallDevice:
    """A forward whose states are its ids, and which holds few tokens at a time."""

    batches = staticmethod(packed_batches)

    def __init__(self, capacity: int) -> None:
        self._capacity, self.sizes = capacity, []

    def states(self, ids: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        if len(ids) > self._capacity:
            raise torch.OutOfMemoryError
        self.sizes.append(len(ids))
        return ids.float()[:, None].expand(-1, 4)


def encode(capacity: int, backend: str = "packed", progress: Progress | None = None) -> tuple[np.ndarray, SmallDevice]:
    spec = replace(
        hashing.resolve("hashing:4", ""),
        kind="transformer",
        backend=backend,
        max_batch_tokens=32,
        heads=[{"type": "pooling", "modes": ["max"]}],
    )
    ids = np.repeat(np.arange(len(LENGTHS), dtype=np.int32), LENGTHS)
    rows = {"n_tokens": pa.array(LENGTHS), "prompt_tokens": pa.array(np.zeros_like(LENGTHS))}
    device = SmallDevice(capacity)
    encoder = TransformerEncoder(spec, device, torch.device("cpu"))
    return encoder.encode(PreparedTexts(rows=rows, token_ids=pa.array(ids)), progress), device


@pytest.mark.parametrize("capacity", [8, 15, 31, 1000])
def test_every_text_has_its_vector_whatever_fits(capacity):
    vectors, _ = encode(capacity)
    assert vectors[:, 0].tolist() == list(range(len(LENGTHS)))


def test_the_budget_stays_halved_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        _, device = encode(15)
    assert device.sizes == [8, 8, 7, 8, 3]
    assert [record.args[1] for record in caplog.records] == [16, 8]


@pytest.mark.parametrize(
    ("backend", "capacity", "batches"),
    [
        ("packed", 1000, [(5, 31, 32), (2, 3, 32)]),
        ("padded", 1000, [(5, 31, 5 * 8), (2, 3, 2 * 2)]),
        ("packed", 15, [(1, 8, 8), (1, 8, 8), (1, 7, 8), (2, 8, 8), (2, 3, 8)]),
    ],
)
def test_each_batch_tells_what_it_held_and_had_room_for(backend, capacity, batches):
    told = []
    encode(capacity, backend, lambda rows, tokens, room=0: told.append((rows, tokens, room)))
    assert told == batches


def test_a_text_that_fits_nowhere_is_named():
    with pytest.raises(ModelError, match="a text of 8 tokens alone does not fit"):
        encode(7)


def test_vectors_that_find_no_room_on_the_device_are_a_matter_of_the_unit(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(ModelError, match=r"7 vectors do not fit .* smaller output\.unit_rows"):
        encode(1000)
