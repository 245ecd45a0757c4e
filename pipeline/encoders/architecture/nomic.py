"""Nomic's own configuration files, for the class of transformers that took its code over.

Published models (nomic-embed-text-v1 and -v1.5, and what was trained from them) keep sizes under other names, which
that class would leave at its defaults. What it does not compute is refused. Defaults are those of the published code.
"""

from __future__ import annotations

from typing import Any

from pipeline.exceptions import ModelError

_NAMES = {
    "vocab_size": "vocab_size",
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "type_vocab_size": "type_vocab_size",
    "layer_norm_epsilon": "layer_norm_eps",
    "pad_token_id": "pad_token_id",
}
_COMPUTED: dict[str, tuple[Any, Any]] = {
    "activation_function": ("swiglu", "gelu_new"),
    "rotary_emb_fraction": (1.0, 0.0),
    "rotary_emb_interleaved": (False, False),
    "rotary_emb_scale_base": (None, None),
    "rotary_scaling_factor": (None, None),
    "qkv_proj_bias": (False, True),
    "mlp_fc1_bias": (False, True),
    "mlp_fc2_bias": (False, True),
    "prenorm": (False, False),
    "parallel_block": (False, False),
    "causal": (False, False),
    "use_rms_norm": (False, False),
    "norm_mlp": (False, False),
    "num_experts": (None, None),
}
"""What the class of transformers computes, and what a configuration without the key means."""
_INNER_MULTIPLE = 256


def is_published(config: dict[str, Any]) -> bool:
    """Tell Nomic's own form from that of transformers."""
    return config.get("model_type") == "nomic_bert" and "n_embd" in config


def refuse_unfit(model: str, config: dict[str, Any]) -> None:
    """Refuse what the class of transformers does not compute.

    Raises:
        ModelError: naming the first such setting.
    """
    for key, (computed, default) in _COMPUTED.items():
        asked = config.get(key, default)
        if (asked or None) != (computed or None):
            raise ModelError(model, f"{key} is {asked!r}, where transformers computes Nomic's {computed!r} only")


def translate(config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `transformers.NomicBertConfig`."""
    known = {name: config[key] for key, name in _NAMES.items() if config.get(key) is not None}
    inner = config.get("n_inner") or int(8 * config["n_embd"] / 3)
    rope = {"rope_type": "default", "rope_theta": float(config.get("rotary_emb_base", 10_000))}
    return {**known, "intermediate_size": -(-inner // _INNER_MULTIPLE) * _INNER_MULTIPLE, "rope_parameters": rope}
