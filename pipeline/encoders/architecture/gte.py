"""Alibaba's own configuration files of its GTE encoders, for the class of transformers that took their code over.

Published models (gte-*-en-v1.5, gte-multilingual-base, snowflake-arctic-embed-m-v2.0, stella_en_400M_v5) call the
architecture `new`, or `gte`, and name code of their own. What the class does not compute is refused. Its rotation is
that of the published code: transformers has no name for fixed NTK scaling, and would leave it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.exceptions import ModelError

if TYPE_CHECKING:
    from torch import Tensor

MODEL_TYPES = ("new", "gte")
_KEPT = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
)
_COMPUTED: dict[str, Any] = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "pack_qkv": True,
    "logn_attention_scale": False,
}
"""What the class of transformers computes, which is also what a configuration without the key means."""


def is_published(config: dict[str, Any]) -> bool:
    """Tell Alibaba's own form from that of transformers."""
    return config.get("model_type") in MODEL_TYPES and bool(config.get("auto_map")) and "rope_theta" in config


def refuse_unfit(model: str, config: dict[str, Any]) -> None:
    """Refuse what the class of transformers does not compute.

    Raises:
        ModelError: naming the first such setting.
    """
    for key, computed in _COMPUTED.items():
        if config.get(key, computed) != computed:
            reason = f"{key} is {config[key]!r}, where transformers computes GTE's {computed!r} only"
            raise ModelError(model, reason)
    scaling = config.get("rope_scaling") or {"type": "ntk"}
    if scaling.get("type") != "ntk" or not set(scaling) <= {"type", "factor"}:
        raise ModelError(model, f"rope_scaling is {scaling!r}, where embatch computes GTE's fixed ntk only")


def translate(config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `transformers.GteConfig`; its rotation still needs `scaled`."""
    rope = {"rope_type": "default", "rope_theta": float(config["rope_theta"])}
    return {**{key: config[key] for key in _KEPT if key in config}, "rope_parameters": rope}


def scaled(frequencies: Tensor, config: dict[str, Any]) -> Tensor:
    """Scale rotary frequencies, [head width / 2], by a fixed factor, as the published code does (kexue.fm, 9706).

    The i-th frequency of d / 2, from 0, is divided by factor ** ((2 i + 2) / d), at every place of a text.
    """
    factor = float((config.get("rope_scaling") or {}).get("factor", 1.0))
    exponents = frequencies.new_tensor(range(1, len(frequencies) + 1)) / len(frequencies)
    return frequencies / factor**exponents
