"""Compile the GPU kernels to machine code, which needs no GPU; prints architecture, matrix operator, shared memory.

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
HEADS = (32, 64, 128)
LONGEST = (64, 512)


def compile_one(kernel, types: dict[str, str], constants: dict[str, object], architecture: int, **options: int) -> None:
    types = types | dict.fromkeys(constants, "constexpr")
    # torch's allocator aligns what it gives, and launches tell the compiler so
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(types.values()) if kind[0] == "*"}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    matrix = re.search(r"wgmma\.mma|mma\.sync", compiled.asm["ptx"])
    print(kernel.__name__, architecture, matrix[0] if matrix else "-", compiled.metadata.shared)


def compile_for(architecture: int) -> None:
    seen = []
    for head in HEADS:
        for longest in LONGEST:
            sizes = triton_kernels.attention_sizes(head, longest)
            constants = {
                "HEADS": 16,
                "HEAD": head,
                "BIASED": True,
                "ROWS": sizes.pop("ROWS"),
                "KEYS": sizes.pop("KEYS"),
            }
            if constants not in seen:
                seen.append(constants)
                compile_one(triton_kernels._attend, ATTENTION | SIZES, constants, architecture, **sizes)
    constants = {"WIDTH": 768, "BLOCK": 1024, "LAYER": False}
    compile_one(triton_kernels._add_norm, NORM, constants, architecture, num_warps=4)
    halves = NORM | {"x": "*fp16", "y": "*fp16", "out": "*fp16"}
    constants = {"WIDTH": 384, "BLOCK": 512, "LAYER": True}
    compile_one(triton_kernels._add_norm, halves, constants, architecture, num_warps=2)


if __name__ == "__main__":
    for generation in (80, 89, 90):
        compile_for(generation)
