"""The encoder of T5 v1.0 (sentence-T5, GTR, INSTRUCTOR) over texts that lie end to end.

Pre-norm encoder of Raffel et al. 2020 (arXiv:1910.10683): scores without scaling, one relative bias for all layers,
ReLU, no biases elsewhere. Matrix products run in the spec's dtype; the residual stream, which overflows 16 bits, and
the norms in float32.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.batching import packed_batches
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.packed.attention import self_attention
from pipeline.encoders.packed.packing import Buffers, Packing
from pipeline.encoders.packed.products import build_product, fill_up
from pipeline.encoders.packed.relative import RelativeBias
from pipeline.encoders.packed.weights import Weights, load_weights

_RELATIVE = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


class PackedT5:
    """The loaded encoder."""

    batches = staticmethod(packed_batches)

    def __init__(self, spec: EncoderSpec) -> None:
        config = json.loads(Path(spec.folder, "config.json").read_text(encoding="utf-8"))
        weights = load_weights(spec.model, Path(spec.folder), list(spec.files))
        self._dtype, self._buffers = getattr(torch, spec.dtype), Buffers()
        self._epsilon = config["layer_norm_epsilon"]
        self._heads, self._inner = config["num_heads"], config["num_heads"] * config["d_kv"]
        self._words = weights.first("shared.weight", "encoder.embed_tokens.weight")
        distance = config.get("relative_attention_max_distance", 128)
        self._bias = RelativeBias(weights[_RELATIVE], spec.max_seq_length, distance)
        self._layers = [
            _Layer(weights, f"encoder.block.{number}.layer.", self._dtype, self._buffers)
            for number in range(config["num_layers"])
        ]
        self._norm = weights["encoder.final_layer_norm.weight"]

    def states(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Encode tokens, int64 [tokens] with texts of `lengths` end to end, to float32 [tokens, width]."""
        packing = Packing(lengths)
        x = fill_up(self._words[ids], self._dtype)
        context = self._buffers.take("context", len(x), self._inner, self._dtype)
        for layer in self._layers:
            qkv = layer.qkv(self._normed(x, layer.attention_norm))
            attended = self_attention(qkv, packing, self._heads, context, scale=1.0, bias=self._bias)
            layer.attended.add_to(x, attended)
            layer.down.add_to(x, layer.up(self._normed(x, layer.norm)))
        return self._normed(x[: len(ids)], self._norm)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return nn.functional.rms_norm(x, x.shape[1:], weight, self._epsilon)


class _Layer:
    def __init__(self, weights: Weights, prefix: str, dtype: torch.dtype, buffers: Buffers) -> None:
        attention, dense = f"{prefix}0.SelfAttention", f"{prefix}1.DenseReluDense"
        qkv = torch.cat([weights[f"{attention}.{name}.weight"] for name in "qkv"])
        self.qkv = build_product(qkv, None, dtype, buffers, name="qkv")
        self.attended = build_product(weights[f"{attention}.o.weight"], None, dtype, buffers, name="attended")
        self.up = build_product(weights[f"{dense}.wi.weight"], None, dtype, buffers, name="up", activation="relu")
        self.down = build_product(weights[f"{dense}.wo.weight"], None, dtype, buffers, name="down")
        self.attention_norm = weights[f"{prefix}0.layer_norm.weight"]
        self.norm = weights[f"{prefix}1.layer_norm.weight"]
