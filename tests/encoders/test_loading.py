"""`pipeline.load_encoder`, with the packaged MiniLM: true weights in every run of the tests."""

from __future__ import annotations

import numpy as np
import pytest
from encoders import tiny_models
from sentence_transformers import SentenceTransformer

import pipeline
from pipeline.exceptions import ConfigError, ModelError

MINILM = "packaged:all-MiniLM-L6-v2"
pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def minilm():
    return pipeline.load_encoder(MINILM, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def reference(minilm):
    return SentenceTransformer(minilm.spec.folder, device="cpu")


def test_true_weights_give_the_references_vectors(minilm, reference):
    texts = tiny_models.texts(40)
    ours, theirs = minilm.encode(texts), reference.encode(texts, batch_size=8)
    assert (ours * theirs).sum(1).min() >= 0.999999
    assert np.abs(ours - theirs).max() <= 1e-5


def test_true_weights_in_bfloat16_stay_close(minilm):
    texts = tiny_models.texts(40)
    cosines = (pipeline.load_encoder(MINILM, device="cpu", dtype="bfloat16").encode(texts) * minilm.encode(texts)).sum(
        1
    )
    assert cosines.min() >= 0.9995
    assert cosines.mean() >= 0.9999


def test_a_prompt_may_be_the_encoders_own_one_for_all_or_one_a_text(minilm):
    own = pipeline.load_encoder(MINILM, device="cpu", dtype="float32", prompt="query: ").encode(["a", "b"])
    shared = minilm.encode(["a", "b"], prompt="query: ")
    each = minilm.encode(["a", "b"], prompt=["query: ", "query: "])
    assert np.array_equal(own, shared)
    assert np.array_equal(own, each)
    assert not np.allclose(own, minilm.encode(["a", "b"]))


def test_no_texts_give_no_vectors(minilm):
    assert minilm.encode([]).shape == (0, 384)


def test_one_string_is_not_a_list_of_texts(minilm):
    with pytest.raises(TypeError, match="one string"):
        minilm.encode("a text")


def test_a_prompt_without_room_for_a_text_is_refused(minilm):
    with pytest.raises(ConfigError, match="at text 1"):
        minilm.encode(["a", "b"], prompt=["query: ", "the " * 300])


def test_wrong_keys_and_models_are_named():
    with pytest.raises(ConfigError, match=r"encoder\.dtyp.*did you mean 'dtype'"):
        pipeline.load_encoder(MINILM, dtyp="float32")
    with pytest.raises(ModelError, match="no such folder"):
        pipeline.load_encoder("/no/such/model", device="cpu")
