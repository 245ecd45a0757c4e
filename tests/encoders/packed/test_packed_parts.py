"""The parts of the padding-free forward beside plain formulas: packing, products, relative bias, attention."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder
from transformers.models.t5.modeling_t5 import T5Attention

from pipeline.encoders.packed.attention import self_attention
from pipeline.encoders.packed.packing import Buffers, Packing
from pipeline.encoders.packed.products import OneDnnProduct, TorchProduct, build_product, prefers_onednn
from pipeline.encoders.packed.relative import RelativeBias

LENGTHS = [7, 7, 7, 5, 2, 2, 1]
ACTIVATIONS = {"none": nn.Identity(), "gelu": nn.GELU(), "relu": nn.ReLU()}

lengths = st.lists(st.integers(0, 9), min_size=1, max_size=20)


@given(lengths=lengths)
def test_runs_hold_every_token_once_in_texts_of_one_length(lengths):
    runs = list(Packing(lengths).runs())
    assert [length for _, texts, length in runs for _ in range(texts)] == lengths
    assert [start for start, _, _ in runs] == [
        sum(texts * length for _, texts, length in runs[:n]) for n in range(len(runs))
    ]


@given(lengths=lengths)
def test_positions_start_again_with_each_text(lengths):
    assert Packing(lengths).positions().tolist() == [place for length in lengths for place in range(length)]


@given(lengths=lengths, data=st.data())
def test_counts_are_summed_within_a_text_only(lengths, data):
    counts = data.draw(st.lists(st.integers(0, 1), min_size=sum(lengths), max_size=sum(lengths)))
    expected = [text.cumsum(0) for text in torch.tensor(counts, dtype=torch.int64).split(lengths)]
    assert Packing(lengths).cumulated(torch.tensor(counts, dtype=torch.int64)).tolist() == torch.cat(expected).tolist()


def test_a_buffer_is_used_again_and_grows():
    buffers = Buffers()
    small, large = buffers.take("up", 2, 3, torch.float32), buffers.take("up", 4, 5, torch.float32)
    assert (small.shape, large.shape) == ((2, 3), (4, 5))
    assert buffers.take("up", 3, 5, torch.float32).data_ptr() == large.data_ptr()
    assert buffers.take("qkv", 3, 5, torch.float32).data_ptr() != large.data_ptr()


def test_threads_do_not_share_buffers():
    buffers, theirs = Buffers(), []
    ours = buffers.take("up", 4, 5, torch.float32)
    thread = threading.Thread(target=lambda: theirs.append(buffers.take("up", 4, 5, torch.float32)))
    thread.start()
    thread.join()
    assert theirs[0].data_ptr() != ours.data_ptr()


@pytest.mark.parametrize("library", ["torch", "onednn"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("biased", [True, False])
def test_both_libraries_compute_the_product(library, activation, biased):
    x, weight = torch.randn(33, 24), torch.randn(40, 24)
    bias = torch.randn(40) if biased else None
    if library == "torch":
        product = TorchProduct(weight, bias, activation, Buffers(), "any")
    else:
        product = OneDnnProduct(weight, bias, activation)
    with torch.inference_mode():
        expected = nn.functional.linear(x, weight, bias)
        torch.testing.assert_close(product(x), ACTIVATIONS[activation](expected), atol=1e-5, rtol=1e-5)
        if activation == "none":
            residual = torch.randn(33, 40)
            before = residual.clone()
            product.add_to(residual, x)
            torch.testing.assert_close(residual, before + expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_products_are_added_in_float32():
    x, weight = torch.randn(33, 24), torch.randn(40, 24)
    residual = torch.full((33, 40), 1000.0)  # where bfloat16 steps by 4
    with torch.inference_mode():
        build_product(weight, None, torch.bfloat16, Buffers(), name="any").add_to(residual, x)
    torch.testing.assert_close(residual, 1000 + x @ weight.T, atol=0.2, rtol=0)


@pytest.mark.parametrize(
    ("capability", "dtype", "onednn"),
    [
        ("AVX2", torch.float32, False),
        ("AVX2", torch.bfloat16, False),
        ("AVX512", torch.float32, True),
        ("AVX512", torch.bfloat16, True),
        ("AVX512", torch.float16, False),
        ("DEFAULT", torch.float32, False),
    ],
)
def test_the_library_is_chosen_by_the_processor(capability, dtype, onednn):
    assert prefers_onednn(capability, dtype) is onednn


@pytest.mark.parametrize("longest", [1, 40, 512])
@pytest.mark.parametrize("reference", [T5Attention._relative_position_bucket, MPNetEncoder.relative_position_bucket])
def test_the_bias_is_that_of_the_references(longest, reference):
    embedding = torch.randn(32, 3)
    bias = RelativeBias(embedding, longest, 128)
    for length in {1, min(7, longest), longest}:
        place = torch.arange(length)
        expected = embedding[reference(place[None, :] - place[:, None])].permute(2, 0, 1)
        assert torch.equal(bias.for_reversed_keys(length)[0].flip(2), expected)


def test_the_bias_of_a_text_is_a_view_of_one_table():
    bias = RelativeBias(torch.randn(32, 3), 512, 128)
    stored = bias.for_reversed_keys(512).untyped_storage().nbytes()
    assert stored == bias.for_reversed_keys(3).untyped_storage().nbytes() == 4 * 3 * (2 * 512 - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [True, False])
def test_each_text_attends_to_itself_alone(dtype, biased):
    heads, width = 3, 24
    qkv = torch.randn(sum(LENGTHS), 3 * width)
    bias = RelativeBias(torch.randn(32, heads), 9, 128) if biased else None
    out = torch.full((len(qkv) + 2, width), torch.nan, dtype=dtype)
    filled = torch.cat([qkv, torch.randn(2, 3 * width)]).to(dtype)
    self_attention(filled, Packing(LENGTHS), heads, out, scale=1.0, bias=bias)
    expected = []
    for text in qkv.split(LENGTHS):
        query, key, value = text.view(len(text), 3, heads, width // heads).permute(1, 2, 0, 3)
        scores = query @ key.transpose(1, 2)
        if bias is not None:
            scores = scores + bias.for_reversed_keys(len(text))[0].flip(2)
        expected.append((scores.softmax(-1) @ value).transpose(0, 1).reshape(len(text), width))
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(
        out.float(), torch.cat([*expected, torch.zeros(2, width)]), atol=tolerance, rtol=tolerance
    )
