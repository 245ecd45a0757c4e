"""From token states to vectors, in float32: pooling modes, dense layers, normalisation.

Works on packed states, [tokens, width] with the texts end to end, so that padded and padding-free
forwards share it. The modes are those of sentence-transformers' Pooling.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.encoders.base import EncoderSpec
from pipeline.exceptions import ModelError

Head = Callable[[Tensor], Tensor]


def pool(states: Tensor, lengths: Tensor, modes: list[str], skipped: Tensor | None = None) -> Tensor:
    """Pool packed states.

    Args:
        states: float32 [tokens, width], the texts' tokens end to end.
        lengths: int64 [texts], tokens of each text, at least 1.
        modes: one or more pooling modes; several are concatenated.
        skipped: int64 [texts], leading tokens left out of each text; its last one always stays.

    Returns:
        float32 [texts, width * len(modes)].
    """
    positions = _positions(lengths)
    if skipped is not None:
        skipped = torch.minimum(skipped, lengths - 1)
        kept = positions >= skipped.repeat_interleave(lengths)
        states, positions, lengths = states[kept], positions[kept], lengths - skipped
    return torch.cat([_pool_one(states, positions, lengths, mode) for mode in modes], dim=1)


def _pool_one(states: Tensor, positions: Tensor, lengths: Tensor, mode: str) -> Tensor:
    ends = lengths.cumsum(0)
    if mode == "cls":
        return states[ends - lengths]
    if mode == "lasttoken":
        return states[ends - 1]
    if mode == "max":
        return torch.segment_reduce(states, "max", lengths=lengths)
    if mode == "weightedmean":
        # a token keeps the weight of its place in the text also where those before it are left out
        weights = (positions + 1).to(states.dtype).unsqueeze(1)
        totals = torch.segment_reduce(weights, "sum", lengths=lengths)
        return torch.segment_reduce(states * weights, "sum", lengths=lengths) / totals
    sums = torch.segment_reduce(states, "sum", lengths=lengths)
    counts = lengths.to(states.dtype).unsqueeze(1)
    return sums / (counts if mode == "mean" else counts.sqrt())


def _positions(lengths: Tensor) -> Tensor:
    """Number each text's tokens from 0, int64 [tokens]."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum()), device=lengths.device) - starts.repeat_interleave(lengths)


def build_heads(spec: EncoderSpec, device: torch.device) -> list[Head]:
    """Load the modules after pooling, in order, in float32.

    Raises:
        ModelError: a module's weights are missing or have another shape.
    """
    return [_build_head(spec, head, device) for head in spec.heads if head["type"] != "pooling"]


def _build_head(spec: EncoderSpec, head: dict[str, Any], device: torch.device) -> Head:
    if head["type"] == "normalize":
        return lambda vectors: nn.functional.normalize(vectors, dim=1)
    if head["type"] == "layer_norm":
        module: nn.Module = nn.LayerNorm(head["dimension"])
        activation: nn.Module = nn.Identity()
    else:
        module = nn.Linear(head["in_features"], head["out_features"], bias=head["bias"])
        activation = getattr(nn, head["activation"])()
    path = Path(spec.folder) / head["path"] / "model.safetensors"
    try:
        weights = {name.partition(".")[2]: value.float() for name, value in load_file(path).items()}
        module.load_state_dict(weights)
    except (OSError, RuntimeError) as error:
        raise ModelError(spec.model, f"cannot load {head['path']}/model.safetensors: {error}") from error
    return nn.Sequential(module, activation).to(device).eval()
