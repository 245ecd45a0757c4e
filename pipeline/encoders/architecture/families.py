"""What sets model families apart: where their configuration keeps its sizes, their positions, their 16-bit type.

A family that is not listed runs by the general rule if transformers knows it, with float32 between its
matrix products.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.encoders.architecture import gte, nomic
from pipeline.exceptions import ModelError

_SIZES = {
    "width": ("hidden_size", "d_model", "dim", "n_embd", "n_embed"),
    "layers": ("num_hidden_layers", "num_layers", "n_layers", "n_layer"),
    "inner": ("intermediate_size", "d_ff", "hidden_dim", "n_inner"),
    "heads": ("num_attention_heads", "num_heads", "n_heads", "n_head"),
}
"""Names that families give the same number."""


Packed = Literal["bert", "t5", "rotary"]
"""The kinds of padding-free forwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family of architectures.

    `transformers_class` is the class that holds the encoder alone, and `pooler` whether it can leave
    its own unused pooler out. RoBERTa's kin number positions from `reserved_positions`. `bounded` says
    that norms bound the activations, so that float16 never overflows; `packed` names its padding-free forward.
    `gated` feed-forwards have a third product. `adopted` says that transformers has the very code that published models
    name as their own. `exact_scores` keeps attention in float32: its scores hold positions that bfloat16 would round.
    `sees_padding` says that no mask hides padding from a text's tokens.
    """

    transformers_class: str = "AutoModel"
    pooler: bool = False
    reserved_positions: int = 0
    bounded: bool = False
    packed: Packed | None = None
    gated: bool = False
    adopted: bool = False
    exact_scores: bool = False
    sees_padding: bool = False


FAMILIES = {
    "bert": Family(pooler=True, bounded=True, packed="bert"),
    "distilbert": Family(bounded=True, packed="bert"),
    "roberta": Family(pooler=True, reserved_positions=2, bounded=True, packed="bert"),
    "xlm-roberta": Family(pooler=True, reserved_positions=2, bounded=True, packed="bert"),
    "camembert": Family(pooler=True, reserved_positions=2, bounded=True, packed="bert"),
    "mpnet": Family(pooler=True, reserved_positions=2, bounded=True, packed="bert"),
    "t5": Family(transformers_class="T5EncoderModel", packed="t5"),
    "mt5": Family(transformers_class="MT5EncoderModel"),
    "umt5": Family(transformers_class="UMT5EncoderModel"),
    "modernbert": Family(gated=True, packed="rotary"),
    "nomic_bert": Family(gated=True, adopted=True, packed="rotary"),
    "eurobert": Family(gated=True, adopted=True, packed="rotary"),
    "qwen3": Family(gated=True, packed="rotary"),
    "bloom": Family(exact_scores=True),
    # convolutions, Fourier transforms and landmarks reach beyond a text's end
    **dict.fromkeys(("convbert", "fnet", "mobilebert", "nystromformer", "yoso"), Family(sees_padding=True)),
    **dict.fromkeys(gte.MODEL_TYPES, Family(gated=True, adopted=True, packed="rotary")),
}
_MODULES = {"new": "gte"}
"""Where transformers keeps architectures that are published under another name than its own."""
T5_KIN = ("t5", "mt5", "umt5")
"""Encoders and decoders whose encoder alone makes embeddings; their residual streams overflow float16."""
_UNBOUNDED = (*T5_KIN, "nomic_bert")
"""Families whose positions are not limited by what their configuration says they were trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The sizes of one model; `positions` is the most tokens it can number, None without a bound.

    `packed` names the padding-free forward that computes it exactly, if one does; `head_width` is None where a model
    has no heads.
    """

    model_type: str
    width: int
    positions: int | None
    flops_per_token: int
    packed: Packed | None
    head_width: int | None


def family_of(model_type: str, *, remote_code: bool = False) -> Family:
    """Return what is particular to a family; nothing is where a model's own code computes it."""
    return Family() if remote_code else FAMILIES.get(model_type, Family())


def read_architecture(model: str, config: dict[str, Any], *, remote_code: bool = False) -> Architecture:
    """Read a model's sizes from its config.json; with `remote_code` its own code computes it.

    Raises:
        ModelError: the architecture is not one that can run, or brings its own code.
    """
    model_type = str(config.get("model_type"))
    family = family_of(model_type, remote_code=remote_code)
    if not remote_code:
        _refuse_unfit(model, model_type, config)
    width = _size(config, "width")
    if width is None:
        raise ModelError(model, f"architecture {model_type!r} does not say how wide its vectors are")
    positions = None if model_type in _UNBOUNDED else config.get("max_position_embeddings")
    return Architecture(
        model_type=model_type,
        width=width,
        positions=positions - family.reserved_positions if positions else None,
        flops_per_token=_flops_per_token(config, width),
        packed=family.packed if _packs(model_type, config) else None,
        head_width=_head_width(config, width),
    )


def _refuse_unfit(model: str, model_type: str, config: dict[str, Any]) -> None:
    if config.get("auto_map") and not family_of(model_type).adopted:
        named = config["auto_map"]
        if "--" in str(named):
            reason = "in another repository, which no commit of this one pins, so that embatch never runs it"
            raise ModelError(model, f"its config.json names code of its own ({named}) {reason}")
        reason = "runs only by encoder.trust_remote_code and a pinned commit, if you trust it with your machines"
        raise ModelError(model, f"its config.json names code of its own ({named}), which {reason}")
    beside = sorted(key for key in ("vision_config", "audio_config") if config.get(key))
    if beside:
        raise ModelError(model, f"it takes images or sound beside texts ({beside[0]}); embatch embeds texts alone")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "of an unnamed kind")
        reason = f"its weights are quantized ({method}), which embatch does not run; name the model they were made from"
        raise ModelError(model, reason)
    for form in (nomic, gte):
        if form.is_published(config):
            form.refuse_unfit(model, config)
    if not _in_transformers(model_type):
        raise ModelError(model, f"architecture {model_type!r} is not in the installed transformers")
    _refuse_unfit_type(model, model_type, config)
    if config.get("position_embedding_type", "absolute") != "absolute" and not gte.is_published(config):
        kind = config["position_embedding_type"]
        raise ModelError(
            model, f"positions of type {kind!r} are ignored by transformers 5, so the vectors would be wrong"
        )


def _refuse_unfit_type(model: str, model_type: str, config: dict[str, Any]) -> None:
    if model_type == "big_bird" and config.get("attention_type", "block_sparse") == "block_sparse":
        reason = "with block_sparse attention its vectors depend on the texts before; set attention_type: original_full"
        raise ModelError(model, f"{reason} in a copy of its config.json")
    if model_type in ("funnel", "reformer"):
        raise ModelError(model, f"architecture {model_type!r} gives no state for each token of a text")
    if config.get("is_encoder_decoder") and model_type not in T5_KIN:
        reason = f"is an encoder and a decoder; of these only {', '.join(T5_KIN)} run, by their encoders"
        raise ModelError(model, f"architecture {model_type!r} {reason}")


def _packs(model_type: str, config: dict[str, Any]) -> bool:
    """Tell whether the family's padding-free forward computes what this model's configuration asks for."""
    kind = family_of(model_type).packed
    if kind == "t5":
        return str(config.get("feed_forward_proj", "relu")) == "relu"
    if kind == "rotary":
        return gte.is_published(config) or _is_plainly_rotary(config)
    if config.get("is_decoder"):
        return False
    exact_gelu = (config.get("hidden_act") or config.get("activation") or "gelu") == "gelu"
    # MPNet's own code knows no other number of buckets
    return kind is not None and exact_gelu and config.get("relative_attention_num_buckets", 32) == 32


def _is_plainly_rotary(config: dict[str, Any]) -> bool:
    """Tell whether a token's rotation depends on its place alone, and its direction on the family alone."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = scaling if any(isinstance(value, dict) for value in scaling.values()) else {"": scaling}
    rotations = {(kind or {}).get("rope_type", (kind or {}).get("type", "default")) for kind in kinds.values()}
    directed = "is_causal" in config or config.get("use_bidirectional_attention")
    return rotations <= {"default", "linear", "llama3", "yarn"} and not directed


def _head_width(config: dict[str, Any], width: int) -> int | None:
    heads = _size(config, "heads")
    return int(config.get("d_kv") or config.get("head_dim") or 0) or width // heads if heads else None


def _in_transformers(model_type: str) -> bool:
    found = importlib.util.find_spec("transformers")
    if found is None or not found.submodule_search_locations:
        return False
    name = _MODULES.get(model_type, model_type).replace("-", "_")
    models = Path(found.submodule_search_locations[0]) / "models"
    # the text half of a model of several kinds of input, such as gemma3_text, has no folder of its own
    return any(any((models / folder).glob("modeling_*.py")) for folder in (name, name.removesuffix("_text")))


def _size(config: dict[str, Any], name: str) -> int | None:
    return next((int(config[key]) for key in _SIZES[name] if config.get(key)), None)


def _flops_per_token(config: dict[str, Any], width: int) -> int:
    """Matrix-product FLOPs a token without attention scores: 2 L (4 d inner + 2 d ff), gated 3 d ff."""
    layers = _size(config, "layers") or 1
    attention = config.get("d_kv", 0) * (_size(config, "heads") or 0) or width
    wide = _size(config, "inner") or 4 * width
    gated = str(config.get("feed_forward_proj", "")).startswith("gated")
    products = 3 if gated or family_of(str(config.get("model_type"))).gated else 2
    return 2 * layers * (4 * width * attention + products * width * wide)
