"""The limit: how many FLOPs a second the cores do in plain matrix products, one process a core, one thread each."""

from __future__ import annotations

import json
import subprocess
import sys
import time

SHAPES = ((2048, 384, 1536), (2048, 768, 768), (2048, 768, 3072), (1024, 1024, 1024), (2048, 2048, 2048))
"""Rows, inputs, outputs."""
SECONDS = 0.4


def measure(dtypes: list[str], cores: int) -> dict[str, float]:
    """FLOP/s of all cores together, the best kernel and shape of each dtype."""
    command = [sys.executable, "-m", "benchmarks.speed.peak", *dtypes]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(cores)]
    found = [json.loads(process.communicate()[0]) for process in running]
    # all cores are busy with the same kernel and shape at about the same time, and only then do sums count
    return {dtype: max(sum(one[dtype][case] for one in found) for case in found[0][dtype]) for dtype in found[0]}


def _one_core(dtype_name: str) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    dtype, rates = getattr(torch, dtype_name), {}
    kernels = {"linear": torch.nn.functional.linear}
    if torch.backends.mkldnn.is_available():
        kernels["oneDNN"] = lambda x, weight: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "none")
    for rows, inputs, outputs in SHAPES:
        x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        for name, kernel in kernels.items():
            kernel(x, weight)
            began, calls = time.perf_counter(), 0
            while (spent := time.perf_counter() - began) < SECONDS:
                kernel(x, weight)
                calls += 1
            rates[f"{name} {rows}x{inputs}x{outputs}"] = 2 * rows * inputs * outputs * calls / spent
    return rates


if __name__ == "__main__":
    import torch

    with torch.inference_mode():
        print(json.dumps({dtype: _one_core(dtype) for dtype in sys.argv[1:]}))
