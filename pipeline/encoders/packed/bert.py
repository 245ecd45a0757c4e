"""BERT and its kin (RoBERTa, XLM-R, CamemBERT, DistilBERT, MPNet) over texts that lie end to end.

Post-norm encoder of Devlin et al. 2018 (arXiv:1810.04805), as transformers runs it: absolute positions, exact
GELU; MPNet adds a relative bias to its scores. Matrix products run in the spec's dtype; embeddings, residuals and
norms in float32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.batching import packed_batches
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.families import family_of
from pipeline.encoders.packed.attention import self_attention
from pipeline.encoders.packed.packing import Buffers, Packing
from pipeline.encoders.packed.products import Activation, Product, build_product, fill_up
from pipeline.encoders.packed.relative import RelativeBias
from pipeline.encoders.packed.weights import Weights, load_weights


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
_MPNET_MAX_DISTANCE = 128
_MPNET_PADDING_ID = 1
"""Both fixed in its code."""


class PackedBert:
    """The loaded encoder."""

    batches = staticmethod(packed_batches)

    def __init__(self, spec: EncoderSpec) -> None:
        config = json.loads(Path(spec.folder, "config.json").read_text(encoding="utf-8"))
        names, dtype = FAMILIES[spec.model_type], getattr(torch, spec.dtype)
        weights = load_weights(spec.model, Path(spec.folder), list(spec.files)).below(names.base)
        self._epsilon = config.get("layer_norm_eps", _DISTILBERT_EPSILON)
        self._heads = config.get("num_attention_heads") or config["n_heads"]
        # RoBERTa's kin number positions from after the padding id, and skip padding ids inside a text
        self._padding_id = config["pad_token_id"] if family_of(spec.model_type).reserved_positions else None
        if names is MPNET:
            self._padding_id = _MPNET_PADDING_ID
        self._words = weights["embeddings.word_embeddings.weight"]
        self._positions = weights["embeddings.position_embeddings.weight"]
        if names.types:
            # every token is of the first segment
            self._positions = self._positions + weights["embeddings.token_type_embeddings.weight"][0]
        self._norm = weights.norm("embeddings.LayerNorm")
        self._bias = None
        if names.relative is not None:
            self._bias = RelativeBias(weights[names.relative], spec.max_seq_length, _MPNET_MAX_DISTANCE)
        self._dtype, self._buffers = dtype, Buffers()
        layers = config.get("num_hidden_layers") or config["n_layers"]
        self._layers = [
            _Layer(weights, f"{names.layer}.{number}.", names, dtype, self._buffers) for number in range(layers)
        ]

    def states(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Encode tokens, int64 [tokens] with texts of `lengths` end to end, to float32 [tokens, width]."""
        packing = Packing(lengths)
        x = fill_up(self._words[ids] + self._positions[self._numbers(ids, packing)], self._dtype)
        x = self._normed(x, self._norm)
        context = self._buffers.take("context", len(x), x.shape[1], self._dtype)
        for layer in self._layers:
            layer.attended.add_to(x, self_attention(layer.qkv(x), packing, self._heads, context, bias=self._bias))
            x = self._normed(x, layer.attention_norm)
            layer.down.add_to(x, layer.up(x))
            x = self._normed(x, layer.norm)
        return x[: len(ids)]

    def _numbers(self, ids: Tensor, packing: Packing) -> Tensor:
        """Number each text's tokens, int64 [tokens]."""
        if self._padding_id is None:
            return packing.positions()
        counted = (ids != self._padding_id).long()
        numbered: Tensor = packing.cumulated(counted) * counted + self._padding_id
        return numbered

    def _normed(self, x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        normed: Tensor = nn.functional.layer_norm(x, x.shape[1:], *norm, self._epsilon)
        return normed


class _Layer:
    def __init__(self, weights: Weights, prefix: str, names: Names, dtype: torch.dtype, buffers: Buffers) -> None:
        def product(name: str, *linears: str, activation: Activation = "none") -> Product:
            parts = [weights.linear(prefix + linear) for linear in linears]
            weight, bias = (torch.cat(kind) for kind in zip(*parts, strict=True))
            return build_product(weight, bias, dtype, buffers, name=name, activation=activation)

        self.qkv = product("qkv", *names.qkv)
        self.attended = product("attended", names.attended)
        self.up = product("up", names.up, activation="gelu")
        self.down = product("down", names.down)
        self.attention_norm = weights.norm(prefix + names.attention_norm)
        self.norm = weights.norm(prefix + names.norm)
