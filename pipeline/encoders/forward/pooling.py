"""From token states to vectors, in float32: pooling modes, dense layers, normalisation, truncation.

Works on packed states, [tokens, width] with the texts end to end, so that padded and padding-free
forwards share it. The modes are those of sentence-transformers' Pooling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.forward.feeding import Feed
from pipeline.encoders.forward.weights import load_weights
from pipeline.exceptions import ModelError

Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Which tokens each text is pooled over, int64; made on the host, as counting on a device would make it wait.

    `lengths` [texts] counts them; `rows` [tokens] has their rows among packed states and is None where that is all of
    them; `places` [tokens] has their places in their texts, None where no mode asks for them.
    """

    lengths: Tensor
    rows: Tensor | None = None
    places: Tensor | None = None

    def to(self, feed: Feed) -> Spans:
        """Bring them to a device."""
        fields = {"lengths": self.lengths, "rows": self.rows, "places": self.places}
        given = {name: value for name, value in fields.items() if value is not None}
        return Spans(**dict(zip(given, feed.send(*given.values()), strict=True)))


def spans(lengths: Tensor, modes: list[str], skipped: Tensor | None = None) -> Spans:
    """Choose the tokens to pool.

    Args:
        lengths: int64 [texts], tokens of each text, at least 1.
        modes: the pooling modes.
        skipped: int64 [texts], leading tokens left out of each text; its last one always stays.
    """
    if skipped is None and "weightedmean" not in modes:
        return Spans(lengths=lengths)
    starts = lengths.cumsum(0) - lengths
    places = torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)
    if skipped is None:
        return Spans(lengths=lengths, places=places)
    skipped = torch.minimum(skipped, lengths - 1)
    kept = places >= skipped.repeat_interleave(lengths)
    return Spans(lengths=lengths - skipped, rows=kept.nonzero().squeeze(1), places=places[kept])


def pool(states: Tensor, pooled: Spans, modes: list[str]) -> Tensor:
    """Pool packed states.

    Args:
        states: float32 [tokens, width], the texts' tokens end to end.
        pooled: the tokens of each text to pool, on the device of the states.
        modes: one or more pooling modes; several are concatenated.

    Returns:
        float32 [texts, width * len(modes)].
    """
    if pooled.rows is not None:
        states = states[pooled.rows]
    return torch.cat([_pool_one(states, pooled, mode) for mode in modes], dim=1)


def _pool_one(states: Tensor, pooled: Spans, mode: str) -> Tensor:
    lengths = pooled.lengths
    ends = lengths.cumsum(0)
    if mode == "cls":
        return states[ends - lengths]
    if mode == "lasttoken":
        return states[ends - 1]
    if mode == "max":
        return _reduce(states, "max", lengths)
    if mode == "weightedmean":
        # a token keeps the weight of its place in the text also where those before it are left out
        weights = (cast(Tensor, pooled.places) + 1).to(states.dtype).unsqueeze(1)
        return _reduce(states * weights, "sum", lengths) / _reduce(weights, "sum", lengths)
    sums = _reduce(states, "sum", lengths)
    counts = lengths.to(states.dtype).unsqueeze(1)
    return sums / (counts if mode == "mean" else counts.sqrt())


def _reduce(states: Tensor, how: str, lengths: Tensor) -> Tensor:
    # checking that the lengths add up would make the host wait for the device
    return torch.segment_reduce(states, how, lengths=lengths, unsafe=True)


def build_heads(spec: EncoderSpec, device: torch.device) -> list[Head]:
    """Load the modules after pooling, in order, in float32.

    Raises:
        ModelError: a module's weights are missing or have another shape.
    """
    return [_build_head(spec, head, device) for head in spec.heads if head["type"] != "pooling"]


def _build_head(spec: EncoderSpec, head: dict[str, Any], device: torch.device) -> Head:
    if head["type"] == "normalize":
        return lambda vectors: nn.functional.normalize(vectors, dim=1)
    if head["type"] == "truncate":
        return lambda vectors: vectors[:, : head["out_features"]]
    if head["type"] == "plain_layer_norm":
        return lambda vectors: nn.functional.layer_norm(vectors, vectors.shape[1:])
    if head["type"] == "pooler":
        return _build_pooler(spec, head, device)
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


def _build_pooler(spec: EncoderSpec, head: dict[str, Any], device: torch.device) -> Head:
    """Load the pooler that a BERT keeps among its own weights: a linear layer and tanh."""
    weights = load_weights(spec.model, Path(spec.folder), list(spec.files))
    linear = nn.Linear(head["in_features"], head["out_features"])
    names = {part: [f"{base}pooler.dense.{part}" for base in ("", "bert.", "roberta.")] for part in ("weight", "bias")}
    linear.load_state_dict({part: weights.first(*found) for part, found in names.items()})
    return nn.Sequential(linear, nn.Tanh()).to(device).eval()
