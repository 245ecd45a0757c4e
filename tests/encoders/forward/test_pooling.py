"""Pooling on packed states beside sentence-transformers' Pooling on padded ones."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling

from pipeline.encoders.architecture.modules import POOLING_MODES
from pipeline.encoders.forward import pooling

WIDTH = 16
LENGTHS = torch.tensor([7, 1, 300, 12])


@pytest.fixture
def states():
    return torch.randn(len(LENGTHS), int(LENGTHS.max()), WIDTH, generator=torch.Generator().manual_seed(0))


def pool(states, modes, skipped=None):
    return pooling.pool(states, pooling.spans(LENGTHS, modes, skipped), modes)


def packed(states):
    return torch.cat([row[:length] for row, length in zip(states, LENGTHS, strict=True)])


@pytest.mark.parametrize(("mode", "prompt"), list(product(POOLING_MODES, [0, 5])))
def test_each_mode_equals_the_references(states, mode, prompt):
    longer = prompt < LENGTHS  # the reference has no rule for a text that is all prompt
    mask = (torch.arange(states.shape[1]) < LENGTHS[:, None]).long()
    features = {"token_embeddings": states, "attention_mask": mask, "prompt_length": prompt}
    theirs = Pooling(WIDTH, mode, include_prompt=False)(features)["sentence_embedding"]

    ours = pool(packed(states), [mode], torch.full_like(LENGTHS, prompt) if prompt else None)

    assert torch.allclose(ours[longer], theirs[longer], rtol=1e-5, atol=1e-6)


def test_several_modes_are_concatenated_in_their_order(states):
    ours = pool(packed(states), ["max", "cls"])
    assert torch.equal(ours[:, :WIDTH], pool(packed(states), ["max"]))
    assert torch.equal(ours[:, WIDTH:], states[:, 0])


def test_each_text_leaves_out_its_own_prompt(states):
    skipped = torch.tensor([2, 0, 100, 11])
    ours = pool(packed(states), ["mean"], skipped)
    for row, (start, end) in enumerate(zip(skipped, LENGTHS, strict=True)):
        assert torch.allclose(ours[row], states[row, start:end].mean(0), atol=1e-6)


def test_the_last_token_stays_where_a_prompt_is_all_there_is(states):
    ours = pool(packed(states), ["mean"], LENGTHS + 3)
    assert torch.equal(ours, pool(packed(states), ["lasttoken"]))
