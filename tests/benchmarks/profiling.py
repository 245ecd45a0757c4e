"""Where the time of the packed forward goes on this processor: `make bench-profile`.

One process, one thread, as a replica runs; float32, and bfloat16 where the processor multiplies it; the demo corpus as
it is. CPU seconds of torch's operators, by what they are for, and the share of the processor's own matrix-product peak
that the whole reaches.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.speed import lineup, peak
from benchmarks.speed.mixes import passages
from torch.profiler import profile

from pipeline import load_encoder
from pipeline.encoders import precision
from pipeline.encoders.registry import build_encoder, build_preparer

TEXTS = 300
PURPOSES = {
    "products": ("addmm", "mm", "_linear_pointwise"),
    "attention": ("scaled_dot_product", "flip"),
    "activation": ("gelu", "relu"),
    "norms": ("layer_norm", "rms_norm", "rsqrt", "pow", "mean", "mul"),
    "residuals and biases": ("add",),
    "copies and look-ups": ("copy_", "index", "gather", "fill", "pad", "cat", "repeat_interleave"),
}


def purpose(operator: str) -> str:
    """Name what an operator of torch is for."""
    name = operator.partition("::")[2]
    return next((use for use, parts in PURPOSES.items() if any(part in name for part in parts)), "everything else")


def show(model: str, dtype: str, texts: list[str], peak_flops: float) -> None:
    """Profile one model in one precision and print its table."""
    spec = load_encoder(model, dtype=dtype).spec
    encoder, prepared = build_encoder(spec, "cpu", threads=1), build_preparer(spec).prepare(texts)
    encoder.encode(prepared)
    started = time.process_time()
    encoder.encode(prepared)
    seconds = time.process_time() - started
    with profile() as profiled:
        encoder.encode(prepared)
    uses: Counter[str] = Counter()
    for row in profiled.key_averages():
        uses[purpose(row.key)] += row.self_cpu_time_total
    tokens = int(prepared.n_tokens.sum())
    rate = tokens * spec.flops_per_token / seconds
    print(f"{model}, {dtype}: {tokens:,} tokens, {tokens / seconds:,.0f} tokens/s of one core")
    print(f"  {rate / 1e9:.0f} GFLOP/s without attention's own, {rate / peak_flops:.0%} of the peak of products")
    for use, spent in uses.most_common():
        print(f"  {use:22} {spent / sum(uses.values()):6.1%}")


def main() -> None:
    """Profile the models named, or the packaged MiniLM."""
    texts = passages(Path(__file__).parents[2] / "jobs/demo/corpus")[:TEXTS]
    peaks = peak.measure(lineup.dtypes(bf16=precision.detect("cpu").bf16), cores=1)
    for model in sys.argv[1:] or ["packaged:all-MiniLM-L6-v2"]:
        for dtype, flops in peaks.items():
            show(model, dtype, texts, flops)


if __name__ == "__main__":
    main()
