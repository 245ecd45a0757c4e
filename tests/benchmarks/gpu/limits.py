"""What the device itself can do: plain 16-bit matrix products, plain copies, and what it draws while it does."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

from pipeline.encoders.precision import Device

SIDE = {"cuda": 8192, "cpu": 512}
COPIED = {"cuda": 1 << 30, "cpu": 1 << 24}
SECONDS = {"cuda": 0.15, "cpu": 0.02}
GROUPS = 6
"""The best of a few groups of calls counts: the rest were disturbed."""
LOAD_SECONDS = 2.0
SMI = {
    "driver_version": "driver",
    "clocks.sm": "SM clock",
    "clocks.max.sm": "highest SM clock",
    "clocks.mem": "memory clock",
    "power.draw": "power",
    "power.limit": "power limit",
    "temperature.gpu": "temperature",
}


def dtypes_of(device: Device) -> list[str]:
    """Return the dtypes that a device multiplies natively, that of most models first."""
    return [*(["float16"] if device.kind == "cuda" else []), *(["bfloat16"] if device.bf16 else []), "float32"]


def measure(device: torch.device, dtypes: list[str]) -> dict[str, Any]:
    """FLOP/s of a square product in each dtype, and bytes a second read and written by a copy."""
    side, size = SIDE[device.type], COPIED[device.type]
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "side": side,
        "flops_per_s": {dtype: 2 * side**3 / _seconds(product(device, dtype), device) for dtype in dtypes},
        "copied_bytes": size,
        "copy_bytes_per_s": 2 * size / _seconds(lambda: target.copy_(source), device),
    }


def product(device: torch.device, dtype: str) -> Callable[[], object]:
    """Return the square product that is the limit."""
    side = SIDE[device.type]
    left = torch.randn(side, side, device=device).to(getattr(torch, dtype))
    right, out = left.T.contiguous(), torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def describe(device: torch.device) -> dict[str, Any]:
    """Name and sizes of the device."""
    if device.type == "cpu":
        return {"name": "CPU", "torch_cuda": None}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "compute_capability": f"{found.major}.{found.minor}",
        "memory_gib": round(found.total_memory / 2**30, 1),
        "multiprocessors": found.multi_processor_count,
        "l2_mib": round(getattr(found, "L2_cache_size", 0) / 2**20, 1),
        "torch_cuda": torch.version.cuda,
    }


def under_load(device: torch.device, dtype: str) -> dict[str, str]:
    """Return what nvidia-smi says of clocks and power while the device multiplies; empty where it says nothing."""
    if device.type == "cpu" or shutil.which("nvidia-smi") is None:
        return {}
    call = product(device, dtype)
    for _ in range(max(int(LOAD_SECONDS / _seconds(call, device)), 1)):
        call()
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    which = ["--id", f"GPU-{uuid}"] if uuid else []
    command = ["nvidia-smi", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader", *which]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    finally:
        torch.cuda.synchronize(device)
    values = [value.strip() for value in done.stdout.partition("\n")[0].split(",")]
    return dict(zip(SMI.values(), values, strict=True)) if len(values) == len(SMI) and not done.returncode else {}


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, back to back, in the best of the groups."""
    calls = max(int(SECONDS[device.type] / max(_group(call, device, 3), 1e-6)), 1)
    return min(_group(call, device, calls) for _ in range(GROUPS))


def _group(call: Callable[[], object], device: torch.device, calls: int) -> float:
    if device.type == "cpu":
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - began) / calls
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls
