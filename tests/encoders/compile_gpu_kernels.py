"""Compile the GPU kernels to machine code, which needs no GPU; prints each one's architecture and its matrix operator.

A program of its own: a process that interprets kernels cannot compile them.
"""

import re

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pipeline.encoders.packed import triton_kernels

NORM = {"x": "*fp32", "y": "*bf16", "weight": "*fp32", "bias": "*fp32", "out": "*bf16", "epsilon": "fp32"}
ATTENTION = {"qkv": "*bf16", "starts": "*i32", "table": "*fp32", "out": "*bf16", "scale": "fp32"}
SIZES = {"blocks": "i32", "longest": "i32"}


def compile_for(architecture: int) -> None:
    sources = [
        (triton_kernels._attend, ATTENTION | SIZES, {"HEADS": 16, "HEAD": 64, "BIASED": True, "BLOCK": 64}),
        (triton_kernels._add_norm, NORM, {"WIDTH": 768, "BLOCK": 1024, "LAYER": False}),
        (triton_kernels._add_norm, NORM | {"x": "*fp16", "y": "*fp16"}, {"WIDTH": 384, "BLOCK": 512, "LAYER": True}),
    ]
    for kernel, types, constants in sources:
        source = ASTSource(kernel, types | dict.fromkeys(constants, "constexpr"), constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": 4})
        matrix = re.search(r"wgmma\.mma|mma\.sync", compiled.asm["ptx"])
        print(kernel.__name__, architecture, matrix[0] if matrix else "-", len(compiled.asm["cubin"]) > 0)


if __name__ == "__main__":
    for generation in (80, 89, 90):
        compile_for(generation)
