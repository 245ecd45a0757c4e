"""Each GPU kernel beside plain float32 formulas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from samples import ROOT
from torch import nn

from pipeline.encoders.packed.checking import TOLERANCES, check_kernels
from pipeline.encoders.packed.kernels import Norm, Shape
from pipeline.encoders.packed.packing import Packing
from pipeline.encoders.packed.relative import RelativeBias
from pipeline.exceptions import ModelError

SHAPES = {
    "bert": Shape(width=96, inner=96, heads=3, layer_norm=True, relative=False),
    "mpnet": Shape(width=128, inner=128, heads=2, layer_norm=True, relative=True),
    "t5": Shape(width=80, inner=128, heads=2, layer_norm=False, relative=True, scale=1.0),
}


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=str)
def dtype(request, device):
    """The device's 16-bit types; in the interpreter float32 in place of bfloat16, which it cannot multiply."""
    if request.param == (torch.bfloat16 if device.type == "cpu" else torch.float32):
        pytest.skip("not a type of the products there")
    return request.param


@pytest.fixture
def kernels(device, dtype):
    from pipeline.encoders.packed.cuda import CudaKernels

    return CudaKernels(device, dtype)


def texts_of(lengths, width, dtype):
    return torch.randn(sum(lengths), width, generator=torch.Generator().manual_seed(0)).to(dtype)


def attention(qkv, lengths, heads, scale, bias):
    """Return softmax(q k^T * scale + bias) v of each text, in float32."""
    texts = []
    for text in qkv.float().split(lengths):
        query, key, value = text.view(len(text), 3, heads, qkv.shape[1] // 3 // heads).permute(1, 2, 0, 3)
        scores = query @ key.transpose(1, 2) * scale
        if bias is not None:
            scores = scores + bias.for_reversed_keys(len(text))[0].flip(2)
        texts.append((scores.softmax(-1) @ value).transpose(0, 1).flatten(1))
    return torch.cat(texts)


@pytest.mark.parametrize("head_width", [32, 64, 128])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("lengths", [[1], [64], [130, 64, 63, 1], [3, 70, 1, 5], [5, 0, 3, 0]], ids=str)
def test_each_text_attends_to_itself_alone(kernels, lengths, relative, head_width):
    from pipeline.encoders.packed import triton_kernels

    if head_width == 128 and not (relative and len(lengths) == 4):
        pytest.skip("like narrower ones")
    heads, scale = 2, 1.0 if relative else head_width**-0.5
    qkv = texts_of(lengths, 3 * heads * head_width, kernels.dtype)
    bias = RelativeBias(torch.randn(32, heads), 200, 128) if relative else None
    packing, (rows,) = kernels.send(Packing(lengths), torch.arange(len(qkv)))

    found = triton_kernels.attend(
        qkv.to(kernels.device)[rows],
        packing,
        heads,
        scale=scale if relative else None,
        bias=bias.to(kernels.device) if relative else None,
    )

    assert found.dtype == kernels.dtype
    expected = attention(qkv, lengths, heads, scale, bias)
    assert (found.float().cpu() - expected).abs().max() <= TOLERANCES[kernels.dtype]


def test_this_torch_has_flash_attention_with_the_arguments_it_is_called_with(device):
    from pipeline.encoders.packed.cuda import flash_attend

    qkv = torch.empty(8, 3 * 64, dtype=torch.float16, device="meta")  # checks the call, and has nothing to compute
    packing = Packing([5, 3], torch.empty(3, dtype=torch.int32, device="meta"))
    found = flash_attend(qkv, packing, 2)
    assert (found.shape, found.dtype, found.is_contiguous()) == ((8, 64), torch.float16, True)


@pytest.mark.gpu
@pytest.mark.parametrize("head_width", [32, 64, 128])
def test_flash_attention_equals_the_formula(kernels, head_width):
    from pipeline.encoders.packed.cuda import flash_attend

    if kernels.device.type == "cpu":
        pytest.skip("has no interpreter")
    lengths = [130, 65, 64, 2, 1]
    qkv = texts_of(lengths, 3 * 2 * head_width, kernels.dtype)
    packing, (rows,) = kernels.send(Packing(lengths), torch.arange(len(qkv)))
    found = flash_attend(qkv.to(kernels.device)[rows], packing, 2)
    expected = attention(qkv, lengths, 2, head_width**-0.5, None)
    assert (found.float().cpu() - expected).abs().max() <= TOLERANCES[kernels.dtype]


@pytest.mark.parametrize("width", [32, 96, 768])
@pytest.mark.parametrize("rows", [1, 7])
def test_layer_norm_of_a_sum(kernels, width, rows):
    x, y = texts_of([rows], width, kernels.dtype), texts_of([rows], width, kernels.dtype).flip(1)
    norm = Norm(weight=kernels.keep(torch.rand(width)), bias=kernels.keep(torch.rand(width)), epsilon=1e-5)

    found = kernels.norm(x.to(kernels.device), norm, plus=y.to(kernels.device))

    expected = nn.functional.layer_norm(x.float() + y.float(), (width,), norm.weight.cpu(), norm.bias.cpu(), 1e-5)
    assert found.dtype == kernels.dtype
    assert (found.float().cpu() - expected).abs().max() <= TOLERANCES[kernels.dtype]


@pytest.mark.parametrize("exact", [True, False])
def test_an_rms_norm_leaves_the_float32_sum_as_the_residual(kernels, exact):
    rows, width = 9, 96
    weight = torch.randn(width, width) * width**-0.5
    product = kernels.product(weight, None, name="down")
    # past float16's largest number, as T5's residual is
    x = 1e5 + texts_of([rows], width, torch.float32)
    y = texts_of([rows], width, kernels.dtype)
    residual = kernels.keep(x).clone()
    norm = Norm(weight=kernels.keep(torch.rand(width)), epsilon=1e-6)

    found = kernels.add_norm(residual, product, y.to(kernels.device), norm, exact=exact)

    total = x + product(y.to(kernels.device)).float().cpu()
    assert torch.equal(residual.cpu(), total)
    assert found.dtype == (torch.float32 if exact else kernels.dtype)
    expected = nn.functional.rms_norm(total, (width,), norm.weight.cpu(), 1e-6)
    assert (found.float().cpu() - expected).abs().max() <= TOLERANCES[torch.float32 if exact else kernels.dtype]


@pytest.mark.parametrize(("activation", "formula"), [("none", nn.Identity()), ("gelu", nn.GELU()), ("relu", nn.ReLU())])
@pytest.mark.parametrize("biased", [True, False])
def test_products_have_their_bias_and_exact_activation(kernels, activation, formula, biased):
    if activation == "gelu" and not biased:
        pytest.skip("no model has it")
    weight, x = torch.randn(40, 24) * 24**-0.5, texts_of([33], 24, kernels.dtype)
    bias = torch.randn(40) if biased else None
    found = kernels.product(weight, bias, name="up", activation=activation)(x.to(kernels.device))
    expected = formula(nn.functional.linear(x.float(), weight, bias))
    assert found.dtype == kernels.dtype
    assert (found.float().cpu() - expected).abs().max() <= TOLERANCES[kernels.dtype]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_right_kernels_pass_the_check_at_loading(kernels, shape):
    check_kernels(kernels, "a-model", shape)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("part", ["attention", "activation", "norm"])
def test_a_wrong_kernel_is_refused_by_name(device, shape, part):
    from pipeline.encoders.packed.cuda import CudaKernels

    class Wrong(CudaKernels):
        def attend(self, qkv, packing, heads, *, scale=None, bias=None):
            if part == "attention":
                packing = Packing(packing.lengths, packing.starts.clone().clamp(max=129))
            return super().attend(qkv, packing, heads, scale=scale, bias=bias)

        def product(self, weight, bias, *, name, activation="none"):
            wrong = part == "activation" and name == "up"
            return super().product(weight, bias, name=name, activation="none" if wrong else activation)

        def add_norm(self, x, product, y, norm, *, exact=False):
            normed = super().add_norm(x, product, y, norm, exact=exact)
            return torch.full_like(normed, torch.nan) if part == "norm" else normed

    with pytest.raises(ModelError, match=f"the {part} kernel is off by .* set encoder.backend: padded") as caught:
        check_kernels(Wrong(device, torch.float16), "a-model", shape)
    assert caught.value.exit_code == 6


def test_a_kernel_that_cannot_run_is_refused_with_its_reason(device):
    from pipeline.encoders.packed.cuda import CudaKernels

    class Broken(CudaKernels):
        def attend(self, *_, **__):
            raise RuntimeError("no such operator\nand a trace")

    with pytest.raises(ModelError, match=r"the attention kernel cannot run: no such operator; set"):
        check_kernels(Broken(device, torch.float16), "a-model", SHAPES["bert"])


def test_the_kernels_compile_for_gpus_that_are_not_here(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("compile_gpu_kernels.py"))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    operators = {80: "mma.sync", 89: "mma.sync", 90: "wgmma.mma"}
    # bytes a program may have; 99 KiB on the smaller cards of Ampere and Ada, which run what is compiled for 80 and 89
    most = {80: 99 << 10, 89: 99 << 10, 90: 227 << 10}
    found = [line.split() for line in done.stdout.splitlines()]
    expected = [
        [kernel, str(number), matrix]
        for number, operator in operators.items()
        for kernel, matrix in [("_attend", operator)] * 5 + [("_add_norm", "-")] * 2
    ]
    assert [line[:3] for line in found] == expected
    assert all(int(shared) <= most[int(number)] for _, number, _, shared in found)
