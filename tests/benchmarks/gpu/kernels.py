"""What one forward consists of: kernels by their share of the device's time, and the time in which none runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

RUNS = 5
SHOWN = 16
NAME = 90
Span = tuple[float, float]


def profile_forward(encode: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Profile a call; on a CPU torch's operators stand in for kernels.

    `gap` is the share of the undisturbed wall time, a median, in which the profiled call's kernels do not run: the
    profiler slows the host, and its own wall time would show gaps that are not there.
    """
    encode()
    walls = [_wall(encode) for _ in range(RUNS)]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiled:
        encode()
    times: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    if device.type == "cuda":
        events = [event for event in profiled.events() if event.device_type == DeviceType.CUDA]
        events = [event for event in events if not event.is_user_annotation]
        for event in events:
            times[event.name] += event.time_range.elapsed_us()
            calls[event.name] += 1
        busy = union((event.time_range.start, event.time_range.end) for event in events)
    else:
        for row in profiled.key_averages():
            times[row.key], calls[row.key] = row.self_cpu_time_total, row.count
        busy = sum(times.values())
    wall = median(walls) * 1e6
    total = sum(times.values())
    return {
        "wall_ms": wall / 1e3,
        "busy_ms": busy / 1e3,
        "gap": max(1 - busy / wall, 0.0),
        "calls": sum(calls.values()),
        "kernels": [
            {"name": name[:NAME], "calls": calls[name], "share": spent / total}
            for name, spent in times.most_common(SHOWN)
            if spent
        ],
    }


def union(spans: Iterable[Span]) -> float:
    """Length that spans cover together; kernels on several streams may overlap."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return covered


def _wall(encode: Callable[[], object]) -> float:
    began = time.perf_counter()
    encode()
    return time.perf_counter() - began
