"""BERT and its kin (RoBERTa, XLM-R, CamemBERT, DistilBERT, MPNet) over texts that lie end to end.

Post-norm encoder of Devlin et al. 2018 (arXiv:1810.04805), as transformers runs it: absolute positions, exact
GELU; MPNet adds a relative bias to its scores. Which precision each part has is the device's matter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.encoders.architecture.families import family_of
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.forward.batching import packed_batches
from pipeline.encoders.forward.weights import Weights, load_weights
from pipeline.encoders.packed.kernels import Kernels, Norm, Shape
from pipeline.encoders.packed.packing import Packing
from pipeline.encoders.packed.products import Activation, Product
from pipeline.encoders.packed.relative import RelativeBias


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a family calls its tensors; `layer` is followed by the layer's number."""

    base: str
    layer: str = "encoder.layer"
    qkv: tuple[str, str, str]
    attended: str
    attention_norm: str
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"
    types: bool = True
    relative: str | None = None


BERT = Names(
    base="bert",
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    attended="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
)
ROBERTA = replace(BERT, base="roberta")
DISTILBERT = Names(
    base="distilbert",
    layer="transformer.layer",
    qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    attended="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
    types=False,
)
MPNET = Names(
    base="mpnet",
    qkv=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    attended="attention.attn.o",
    attention_norm="attention.LayerNorm",
    types=False,
    relative="encoder.relative_attention_bias.weight",
)
FAMILIES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "distilbert": DISTILBERT,
    "mpnet": MPNET,
}
_DISTILBERT_EPSILON = 1e-12
"""Fixed in its code, not in its configuration."""
_ROBERTA_PADDING_ID = 1
"""What a configuration without one means."""
_MPNET_MAX_DISTANCE = 128
_MPNET_PADDING_ID = 1
"""Both fixed in its code."""


class PackedBert:
    """The loaded encoder."""

    batches = staticmethod(packed_batches)

    def __init__(self, spec: EncoderSpec, kernels: Kernels) -> None:
        config = json.loads(Path(spec.folder, "config.json").read_text(encoding="utf-8"))
        names = FAMILIES[spec.model_type]
        weights = load_weights(spec.model, Path(spec.folder), list(spec.files)).below(names.base)
        epsilon = config.get("layer_norm_eps", _DISTILBERT_EPSILON)
        self._kernels = kernels
        self._heads = config.get("num_attention_heads") or config["n_heads"]
        # RoBERTa's kin number positions from after the padding id, and skip padding ids inside a text
        self._padding_id = (
            config.get("pad_token_id", _ROBERTA_PADDING_ID) if family_of(spec.model_type).reserved_positions else None
        )
        if names is MPNET:
            self._padding_id = _MPNET_PADDING_ID
        positions = weights["embeddings.position_embeddings.weight"]
        if names.types:
            # every token is of the first segment
            positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
        self._words = kernels.keep(weights["embeddings.word_embeddings.weight"], rounded=True)
        self._positions = kernels.keep(positions, rounded=True)
        self._norm = _norm(kernels, weights, "embeddings.LayerNorm", epsilon)
        self._bias = None
        if names.relative is not None:
            bias = RelativeBias(weights[names.relative], spec.max_seq_length, _MPNET_MAX_DISTANCE)
            self._bias = bias.to(kernels.device)
        layers = config.get("num_hidden_layers") or config["n_layers"]
        self._layers = [
            _Layer(kernels, weights, f"{names.layer}.{number}.", names, epsilon) for number in range(layers)
        ]

    @property
    def shape(self) -> Shape:
        """The sizes of its layers."""
        width, relative = self._words.shape[1], self._bias is not None
        return Shape(width=width, inner=width, heads=self._heads, layer_norm=True, relative=relative)

    def states(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Encode tokens of the host, int64 [tokens] with texts of `lengths` end to end, to float32 [tokens, width]."""
        kernels, packing = self._kernels, Packing(lengths)
        packing, (tokens, places) = kernels.send(packing, ids, self._numbers(ids, packing))
        x = kernels.norm(self._words[tokens], self._norm, plus=self._positions[places])
        for layer in self._layers:
            context = kernels.attend(layer.qkv(x), packing, self._heads, bias=self._bias)
            x = kernels.add_norm(x, layer.attended, context, layer.attention_norm)
            x = kernels.add_norm(x, layer.down, layer.up(x), layer.norm, exact=layer is self._layers[-1])
        return x[: len(ids)]

    def _numbers(self, ids: Tensor, packing: Packing) -> Tensor:
        """Number each text's tokens, int64 [tokens]."""
        if self._padding_id is None:
            return packing.positions()
        counted = (ids != self._padding_id).long()
        numbered: Tensor = packing.cumulated(counted) * counted + self._padding_id
        return numbered


class _Layer:
    def __init__(self, kernels: Kernels, weights: Weights, prefix: str, names: Names, epsilon: float) -> None:
        def product(name: str, *linears: str, activation: Activation = "none") -> Product:
            parts = [weights.linear(prefix + linear) for linear in linears]
            weight, bias = (torch.cat(kind) for kind in zip(*parts, strict=True))
            return kernels.product(weight, bias, name=name, activation=activation)

        self.qkv = product("qkv", *names.qkv)
        self.attended = product("attended", names.attended)
        self.up = product("up", names.up, activation="gelu")
        self.down = product("down", names.down)
        self.attention_norm = _norm(kernels, weights, prefix + names.attention_norm, epsilon)
        self.norm = _norm(kernels, weights, prefix + names.norm, epsilon)


def _norm(kernels: Kernels, weights: Weights, name: str, epsilon: float) -> Norm:
    weight, bias = weights.norm(name)
    return Norm(weight=kernels.keep(weight), bias=kernels.keep(bias), epsilon=epsilon)
