"""BERT and its kin (RoBERTa, XLM-R, CamemBERT, DistilBERT) over texts that lie end to end.

Post-norm encoder of Devlin et al. 2018 (arXiv:1810.04805), as transformers runs it: absolute positions, exact
GELU. Matrix products run in the spec's dtype; embeddings, residuals and norms in float32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.batching import packed_batches
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.families import family_of
from pipeline.encoders.packed.attention import self_attention
from pipeline.encoders.packed.products import Product
from pipeline.encoders.packed.weights import Weights, load_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a family calls its tensors; `layer` is followed by the layer's number."""

    base: str
    layer: str
    qkv: tuple[str, str, str]
    attended: str
    attention_norm: str
    up: str
    down: str
    norm: str
    has_types: bool = True


BERT = Names(
    base="bert",
    layer="encoder.layer",
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    attended="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm="output.LayerNorm",
)
DISTILBERT = Names(
    base="distilbert",
    layer="transformer.layer",
    qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    attended="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
    has_types=False,
)
ROBERTA = Names(**{**{name: getattr(BERT, name) for name in BERT.__slots__}, "base": "roberta"})
FAMILIES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "distilbert": DISTILBERT,
}
_DISTILBERT_EPSILON = 1e-12
"""Fixed in its code, not in its configuration."""


class PackedBert:
    """The loaded encoder."""

    def __init__(self, spec: EncoderSpec) -> None:
        config = json.loads(Path(spec.folder, "config.json").read_text(encoding="utf-8"))
        names, dtype = FAMILIES[spec.model_type], getattr(torch, spec.dtype)
        weights = load_weights(spec.model, Path(spec.folder), list(spec.files)).below(names.base)
        self._max_tokens = spec.max_batch_tokens
        self._epsilon = config.get("layer_norm_eps", _DISTILBERT_EPSILON)
        self._heads = config.get("num_attention_heads") or config["n_heads"]
        # RoBERTa's kin number positions from after the padding id, and skip padding ids inside a text
        self._padding_id = config["pad_token_id"] if family_of(spec.model_type).reserved_positions else None
        self._words = weights["embeddings.word_embeddings.weight"]
        self._positions = weights["embeddings.position_embeddings.weight"]
        if names.has_types:
            # every token is of the first segment
            self._positions = self._positions + weights["embeddings.token_type_embeddings.weight"][0]
        self._norm = weights.norm("embeddings.LayerNorm")
        layers = config.get("num_hidden_layers") or config["n_layers"]
        self._layers = [_Layer(weights, f"{names.layer}.{number}.", names, dtype) for number in range(layers)]

    def batches(self, lengths: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int64]]:
        """Group texts by the tokens they have."""
        return packed_batches(lengths, self._max_tokens)

    def states(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Encode tokens, int64 [tokens] with texts of `lengths` end to end, to float32 [tokens, width]."""
        x = self._normed(self._words[ids] + self._positions[self._numbers(ids, lengths)], self._norm)
        for layer in self._layers:
            attended = self_attention(layer.qkv(x), lengths, self._heads)
            x = self._normed(x + layer.attended(attended), layer.attention_norm)
            x = self._normed(x + layer.down(layer.up(x)), layer.norm)
        return x

    def _numbers(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Number each text's tokens, int64 [tokens]."""
        if self._padding_id is None:
            return torch.cat([torch.arange(length) for length in lengths])
        counted = (ids != self._padding_id).long()
        numbers = torch.cat([text.cumsum(0) for text in torch.split(counted, lengths)])
        numbered: Tensor = numbers * counted + self._padding_id
        return numbered

    def _normed(self, x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        normed: Tensor = nn.functional.layer_norm(x, x.shape[1:], *norm, self._epsilon)
        return normed


class _Layer:
    def __init__(self, weights: Weights, prefix: str, names: Names, dtype: torch.dtype) -> None:
        parts = [weights.linear(prefix + name) for name in names.qkv]
        self.qkv = Product(torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts]), dtype)
        self.attended = Product(*weights.linear(prefix + names.attended), dtype)
        self.attention_norm = weights.norm(prefix + names.attention_norm)
        self.up = Product(*weights.linear(prefix + names.up), dtype, gelu=True)
        self.down = Product(*weights.linear(prefix + names.down), dtype)
        self.norm = weights.norm(prefix + names.norm)
