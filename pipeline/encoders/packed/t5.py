"""The encoder of T5 v1.0 (sentence-T5, GTR, INSTRUCTOR) over texts that lie end to end.

Pre-norm encoder of Raffel et al. 2020 (arXiv:1910.10683): scores without scaling, one relative bias for all layers,
ReLU, no biases elsewhere. Matrix products run in the spec's dtype; the residual stream, which overflows float16, and
the norms in float32.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.forward.batching import packed_batches
from pipeline.encoders.forward.weights import Weights, load_weights
from pipeline.encoders.packed.kernels import Kernels, Norm, Shape
from pipeline.encoders.packed.packing import Packing
from pipeline.encoders.packed.products import Activation, Product
from pipeline.encoders.packed.relative import RelativeBias

_RELATIVE = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
_SCALE = 1.0
"""Of the scores: the weights hold it."""


class PackedT5:
    """The loaded encoder."""

    batches = staticmethod(packed_batches)

    def __init__(self, spec: EncoderSpec, kernels: Kernels) -> None:
        config = json.loads(Path(spec.folder, "config.json").read_text(encoding="utf-8"))
        weights = load_weights(spec.model, Path(spec.folder), list(spec.files))
        epsilon = config["layer_norm_epsilon"]
        self._kernels, self._heads, self._inner = kernels, config["num_heads"], config["num_heads"] * config["d_kv"]
        self._words = kernels.keep(weights.first("shared.weight", "encoder.embed_tokens.weight"))
        distance = config.get("relative_attention_max_distance", 128)
        self._bias = RelativeBias(weights[_RELATIVE], spec.max_seq_length, distance).to(kernels.device)
        self._layers = [
            _Layer(kernels, weights, f"encoder.block.{number}.layer.", epsilon)
            for number in range(config["num_layers"])
        ]
        final = Norm(weight=kernels.keep(weights["encoder.final_layer_norm.weight"]), epsilon=epsilon)
        # the norm that follows each layer: a sum and its norm are one step, across the border of layers
        self._following = [*(layer.attention_norm for layer in self._layers[1:]), final]

    @property
    def shape(self) -> Shape:
        """The sizes of its layers."""
        width = self._words.shape[1]
        return Shape(width=width, inner=self._inner, heads=self._heads, layer_norm=False, relative=True, scale=_SCALE)

    def states(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Encode tokens of the host, int64 [tokens] with texts of `lengths` end to end, to float32 [tokens, width]."""
        kernels = self._kernels
        packing, (tokens,) = kernels.send(Packing(lengths), ids)
        x = self._words[tokens]
        normed = kernels.norm(x, self._layers[0].attention_norm)
        for layer, following in zip(self._layers, self._following, strict=True):
            context = kernels.attend(layer.qkv(normed), packing, self._heads, scale=_SCALE, bias=self._bias)
            normed = kernels.add_norm(x, layer.attended, context, layer.norm)
            last = layer is self._layers[-1]
            normed = kernels.add_norm(x, layer.down, layer.up(normed), following, exact=last)
        return normed[: len(ids)]


class _Layer:
    def __init__(self, kernels: Kernels, weights: Weights, prefix: str, epsilon: float) -> None:
        def product(name: str, *linears: str, activation: Activation = "none") -> Product:
            parts = [weights[f"{prefix}{linear}.weight"] for linear in linears]
            weight = torch.cat(parts) if len(parts) > 1 else parts[0]
            return kernels.product(weight, None, name=name, activation=activation)

        def norm(name: str) -> Norm:
            return Norm(weight=kernels.keep(weights[f"{prefix}{name}.weight"]), epsilon=epsilon)

        self.qkv = product("qkv", *(f"0.SelfAttention.{name}" for name in "qkv"))
        self.attended = product("attended", "0.SelfAttention.o")
        self.up = product("up", "1.DenseReluDense.wi", activation="relu")
        self.down = product("down", "1.DenseReluDense.wo")
        self.attention_norm = norm("0.layer_norm")
        self.norm = norm("1.layer_norm")
