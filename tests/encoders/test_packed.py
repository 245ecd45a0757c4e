"""The padding-free forward beside the padded one of transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from encoders import tiny_models
from safetensors.torch import load_file, save_file

from pipeline.batching import packed_batches
from pipeline.config import EncoderConfig
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
    texts = tiny_models.texts(60)
    packed, padded = (encode(folder, texts, dtype="float32", backend=backend) for backend in ("packed", "padded"))
    assert np.abs(packed - padded).max() <= 1e-5 * np.abs(padded).max()


def test_both_matrix_libraries_give_the_same_vectors(folder, monkeypatch):
    texts = tiny_models.texts(40)
    vectors = []
    for capability in ("AVX2", "AVX512"):  # a processor's name decides the library, and any can run both in float32
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda name=capability: name)
        vectors.append(encode(folder, texts, dtype="float32"))
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-5 * np.abs(vectors[0]).max()


def test_packed_products_in_bfloat16_stay_close(folder):
    texts = tiny_models.texts(60)
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


def test_batches_hold_every_text_once_within_the_budget():
    lengths = np.array([3, 900, 5, 5, 7, 256, 1, 40], np.int32)
    batches = packed_batches(lengths, 256)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert [lengths[rows].tolist() for rows in batches] == [[900], [256], [40, 7, 5, 5, 3, 1]]
