"""The padding-free forward over the GPU's kernels beside the padded one in float32, and that it never waits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from encoders import tiny_models
from encoders.comparing import cosines

from pipeline.config import EncoderConfig
from pipeline.encoders.forward.transformer import TransformerEncoder
from pipeline.encoders.packed.building import load_packed
from pipeline.encoders.precision import Device, detect
from pipeline.encoders.registry import build_encoder, build_preparer, resolve

CPU = Device(kind="cpu", bf16=False)


def small(model, config, vocabulary):
    sizes = tiny_models._roberta_sizes(vocabulary, width=64)
    return tiny_models._random(model(config(num_attention_heads=2, intermediate_size=128, **sizes)))


FAMILIES = {
    "bert": (lambda size: tiny_models.bert(size, width=64, inner=128, heads=2), "word_piece"),
    "roberta": (lambda size: small(transformers.RobertaModel, transformers.RobertaConfig, size), "byte_level"),
    "mpnet": (lambda size: small(transformers.MPNetModel, transformers.MPNetConfig, size), "word_piece_mpnet"),
    "t5": (lambda size: tiny_models.t5(size, width=64, inner=128, heads=2), "unigram_t5"),
}
TEXTS = ["a", "special [SEP] </s> <pad> tokens", "", "of a few words, or some more than that", "one two three " * 25]
CLOSE = {torch.float32: 0.9999999, torch.float16: 0.9999, torch.bfloat16: 0.9995}
"""Least cosine to float32."""


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    tiny_models.write_model(path, *FAMILIES[request.param])
    return path


def spec_of(folder, **keys):
    return resolve(EncoderConfig(model=str(folder), **{"pooling": "mean", "dtype": "float32", **keys}), CPU)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_vectors_equal_those_of_the_padded_forward(folder, device, dtype):
    from pipeline.encoders.packed.cuda import CudaKernels

    if dtype == (torch.bfloat16 if device.type == "cpu" else torch.float32):
        pytest.skip("not a type of the products there")
    spec = spec_of(folder, max_batch_tokens=60)  # batches of one text and of several
    if dtype == torch.float16 and spec.model_type == "t5" and device.type == "cuda":
        pytest.skip("T5 runs in bfloat16")
    prepared = build_preparer(spec).prepare(TEXTS)
    packed = TransformerEncoder(spec, load_packed(spec, CudaKernels(device, dtype)), device)

    found = packed.encode(prepared)

    exact = build_encoder(spec_of(folder, backend="padded"), "cpu", 1).encode(prepared)
    assert (len(prepared.n_tokens), max(prepared.n_tokens) > 64) == (len(TEXTS), True)
    assert cosines(found, exact).min() >= CLOSE[dtype]
    assert np.abs(np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1) - 1).max() <= 0.01


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no device")
def test_a_device_runs_packed_by_default_and_no_batch_waits_for_it(folder):
    spec = resolve(EncoderConfig(model=str(folder), pooling="mean", max_batch_tokens=60), detect("cuda"))
    prepared, encoder = build_preparer(spec).prepare(TEXTS), build_encoder(spec, "cuda", 1)
    first = encoder.encode(prepared)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = encoder.encode(prepared)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    exact = build_encoder(spec_of(folder, backend="padded"), "cpu", 1).encode(prepared)
    assert spec.backend == "packed"
    assert np.array_equal(first, again)
    assert cosines(again, exact).min() >= CLOSE[getattr(torch, spec.dtype)]


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("prompt", [None, "query: "])
def test_the_host_reads_nothing_of_a_unit_before_all_is_launched(folder, pooling, prompt, shapes_only):
    # tensors of the meta device have no content, so that reading any of it raises
    spec = spec_of(folder, pooling=pooling, prompt=prompt, prompt_pooling="exclude", max_batch_tokens=60)
    prepared, batches = build_preparer(spec).prepare(TEXTS), []
    meta = torch.device("meta")
    encoder = TransformerEncoder(spec, load_packed(spec, shapes_only(meta, torch.float16)), meta)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        encoder.encode(prepared, lambda rows, _tokens, room: batches.append(rows))
    assert (sum(batches), len(batches) > 1) == (len(TEXTS), True)


@pytest.fixture
def shapes_only(device):
    """Return the GPU's kernels with results of the right shape and no content."""
    from pipeline.encoders.packed.cuda import CudaKernels

    class ShapesOnly(CudaKernels):
        def norm(self, x, norm, plus=None):
            return norm.of(x) if plus is None else x.to(self.dtype)

        def add_norm(self, x, product, y, norm, *, exact=False):
            return product(y).to(torch.float32 if exact else self.dtype)

        def attend(self, qkv, packing, heads, *, scale=None, bias=None):
            assert (packing.starts.device.type, packing.starts.dtype) == ("meta", torch.int32)
            return qkv[:, : qkv.shape[1] // 3]

    return ShapesOnly


@pytest.fixture(autouse=True)
def segment_reduce_without_content(monkeypatch):
    """Give torch's segment_reduce a shape on the meta device; without `unsafe` it reads the lengths on a GPU."""
    real = torch.segment_reduce

    def shape(data, reduce, *, lengths, unsafe=False):
        if data.device.type != "meta":
            return real(data, reduce, lengths=lengths, unsafe=unsafe)
        assert unsafe, f"{reduce} would wait for the device"
        return data.new_empty((len(lengths), *data.shape[1:]))

    monkeypatch.setattr(torch, "segment_reduce", shape)
