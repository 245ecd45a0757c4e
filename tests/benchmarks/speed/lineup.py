"""Which contenders meet on which model and mix; everything everywhere would take hours."""

from __future__ import annotations

from benchmarks.speed import contenders
from benchmarks.speed.contenders import CommandContender, EngineContender

END_TO_END = "short, end to end"
MIXES = ("mixed", "short", "long", END_TO_END)
SIZES = {END_TO_END: 16}
"""How much longer than others a cell is: commands have to get past their start."""


def dtypes(*, bf16: bool) -> list[str]:
    """Precisions this processor multiplies natively, the one embatch takes by default last."""
    return ["float32", "bfloat16"] if bf16 else ["float32"]


def mixes_of(model: str, wanted: list[str]) -> list[str]:
    """Return the mixes a model runs, in order; programs end to end only with the true weights."""
    return [mix for mix in MIXES if mix in wanted and (mix != END_TO_END or model == "minilm")]


def is_full(model: str, mix: str) -> bool:
    """Whether sentence-transformers' best settings are chosen anew here."""
    return mix != END_TO_END and (model == "minilm" or mix == "mixed")


def engines(model: str, mix: str, best: EngineContender, *, bf16: bool) -> list[EngineContender]:
    """Encoders alone, in order of their turns."""
    types = dtypes(bf16=bf16)
    ours = [contenders.embatch(dtype) for dtype in types]
    if mix == END_TO_END:
        return ours[-1:]
    if not is_full(model, mix):
        return [ours[-1], best]
    graph = contenders.openvino(types[-1])
    if model != "minilm":
        return [*ours, contenders.DEFAULTS, best, graph]
    return [*ours, contenders.DEFAULTS, *([contenders.BF16] if bf16 else []), best, graph, contenders.ONNX]


def commands(mix: str) -> tuple[CommandContender, ...]:
    """Whole programs."""
    return contenders.COMMANDS if mix == END_TO_END else ()


def graphs(model: str) -> tuple[str, ...]:
    """Which conversions a model needs."""
    return ("openvino", "onnx") if model == "minilm" else ("openvino",)
