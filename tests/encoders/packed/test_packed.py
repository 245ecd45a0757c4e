"""The padding-free forward beside the padded one of transformers."""

from __future__ import annotations

import json
import types

import numpy as np
import pytest
import torch
from encoders import tiny_models
from safetensors.torch import load_file, save_file

from pipeline.config import EncoderConfig
from pipeline.encoders.forward.batching import packed_batches
from pipeline.encoders.packed.packing import Packing
from pipeline.encoders.packed.rotary import attend
from pipeline.encoders.precision import Device
from pipeline.encoders.registry import build_encoder, build_preparer, resolve
from pipeline.exceptions import ConfigError, ModelError

CPU = Device(kind="cpu", bf16=True)
FAMILIES = {
    "bert": (tiny_models.bert, "word_piece"),
    "distilbert": (tiny_models.distilbert, "word_piece"),
    "roberta": (tiny_models.roberta, "byte_level"),
    "xlm-roberta": (tiny_models.xlm_roberta, "unigram_xlm"),
    "mpnet": (tiny_models.mpnet, "word_piece_mpnet"),
    "t5": (tiny_models.t5, "unigram_t5"),
    "modernbert": (lambda size: tiny_models.modernbert(size, width=128), "byte_level_modernbert"),
    "nomic": (lambda size: tiny_models.nomic(size, width=128), "word_piece"),
    "qwen3": (lambda size: tiny_models.qwen3(size, width=128), "byte_level_qwen"),
}


def spec_of(folder, **keys):
    return resolve(EncoderConfig(model=str(folder), pooling="mean", **keys), CPU)


def encode(folder, texts, **keys):
    spec = spec_of(folder, **keys)
    return build_encoder(spec, "cpu", threads=1).encode(build_preparer(spec).prepare(texts))


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    tiny_models.write_model(path, *FAMILIES[request.param])
    return path


def test_packed_is_the_default_where_it_fits_and_recorded(folder):
    assert spec_of(folder).identity()["backend"] == "packed"
    assert spec_of(folder, backend="padded").identity()["backend"] == "padded"


def test_packed_vectors_equal_padded_ones(folder):
    texts = tiny_models.texts(40)
    packed, padded = (encode(folder, texts, dtype="float32", backend=backend) for backend in ("packed", "padded"))
    assert np.abs(packed - padded).max() <= 1e-5 * np.abs(padded).max()


def test_both_matrix_libraries_give_the_same_vectors(folder, monkeypatch):
    texts = tiny_models.texts(30)
    vectors = []
    for capability in ("AVX2", "AVX512"):  # a processor's name decides the library, and any can run both in float32
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda name=capability: name)
        vectors.append(encode(folder, texts, dtype="float32"))
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-5 * np.abs(vectors[0]).max()


def test_packed_products_in_bfloat16_stay_close(folder):
    texts = tiny_models.texts(40)
    packed, exact = (encode(folder, texts, dtype=dtype) for dtype in ("bfloat16", "float32"))
    norms = np.linalg.norm(packed, axis=1) * np.linalg.norm(exact, axis=1)
    assert ((packed * exact).sum(axis=1) / norms).min() >= 0.9995


def test_a_missing_tensor_is_refused(tmp_path):
    tiny_models.write_model(tmp_path, *FAMILIES["bert"])
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"lack the tensor encoder\.layer\.1\.output\.dense\.bias"):
        encode(tmp_path, ["a text"])


def test_another_activation_runs_padded_and_cannot_be_forced(tmp_path):
    tiny_models.write_model(tmp_path, *FAMILIES["bert"])
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu_new"}))
    assert spec_of(tmp_path).backend == "padded"
    with pytest.raises(ConfigError, match="no packed forward"):
        spec_of(tmp_path, backend="packed")


@pytest.fixture(scope="module")
def rotary(tmp_path_factory):
    path = tmp_path_factory.mktemp("rotary")
    tiny_models.write_model(path, *FAMILIES["modernbert"])
    return build_encoder(spec_of(path, dtype="bfloat16"), "cpu", threads=1)._forward


def test_rotary_encoders_are_compared_with_themselves_by_torchs_attention(rotary):
    rotary.check()
    assert rotary._model.config._attn_implementation == "embatch_packed"


def test_rotary_attention_that_is_off_is_refused(rotary, monkeypatch):
    monkeypatch.setattr(
        "pipeline.encoders.packed.rotary.Packing", lambda lengths, starts=None: Packing([sum(lengths)], starts)
    )
    with pytest.raises(ModelError, match=r"off by .*set encoder\.backend: padded"):
        rotary.check()


@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (False, 4), (True, 4)])
def test_rotary_attention_sees_what_direction_and_window_allow(causal, window):
    lengths, heads, width = [9, 9, 5, 1], 4, 8
    query = torch.randn(1, heads, sum(lengths) + 2, width)
    key, value = torch.randn(2, 1, heads // 2, sum(lengths) + 2, width)
    module = types.SimpleNamespace(is_causal=causal)
    found, _ = attend(module, query, key, value, None, packing=Packing(lengths), scaling=0.5, sliding_window=window)
    expected, start = [], 0
    for length in lengths:
        one, two, three = (
            x[0, :, start : start + length] for x in (query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1))
        )
        away = torch.arange(length)[:, None] - torch.arange(length)[None, :]
        seen = (away.abs() < (window or length)) & ((away >= 0) | (not causal))
        scores = (one @ two.transpose(1, 2) * 0.5).masked_fill(~seen, -torch.inf)
        expected.append((scores.softmax(-1) @ three).transpose(0, 1))
        start += length
    expected.append(torch.zeros(2, heads, width))
    torch.testing.assert_close(found[0], torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_batches_hold_every_text_once_within_the_budget():
    lengths = np.array([3, 900, 5, 5, 7, 256, 1, 40], np.int32)
    batches = packed_batches(lengths, 256)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert [lengths[rows].tolist() for rows in batches] == [[900], [256], [40, 7, 5, 5, 3, 1]]
