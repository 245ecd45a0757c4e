"""Read a model folder's configuration: the sentence-transformers module chain, limits and prompts.

Understands both the older configuration files and those of sentence-transformers 6. A module it does not
know is refused by name, never approximated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.exceptions import ModelError

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid")
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_UNLIMITED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleChain:
    """What a model folder says of itself; `heads` is empty where it says nothing of pooling."""

    config: dict[str, Any]
    max_seq_length: int
    lower_case: bool
    heads: list[dict[str, Any]]
    prompts: dict[str, str]
    default_prompt_name: str | None


def read_chain(model: str, folder: Path) -> ModuleChain:
    """Read the chain of modules in a folder.

    Raises:
        ModelError: a file is missing or malformed, or a module is not one embatch runs.
    """
    config = _json(model, folder / "config.json")
    if config is None:
        raise ModelError(model, f"no config.json in {str(folder)!r}")
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(model, f"no tokenizer.json in {str(folder)!r}; embatch reads fast tokenizers only")
    transformer = _json(model, folder / "sentence_bert_config.json") or {}
    prompts = _json(model, folder / "config_sentence_transformers.json") or {}
    return ModuleChain(
        config=config,
        max_seq_length=_max_seq_length(model, folder, config, transformer),
        lower_case=bool(transformer.get("do_lower_case", False)),
        heads=_heads(model, folder),
        prompts=dict(prompts.get("prompts") or {}),
        default_prompt_name=prompts.get("default_prompt_name"),
    )


def output_dimension(chain_heads: list[dict[str, Any]], hidden_size: int) -> int:
    """Follow the width of a vector through the heads."""
    width = hidden_size
    for head in chain_heads:
        if head["type"] == "pooling":
            width *= len(head["modes"])
        elif head["type"] == "dense":
            width = int(head["out_features"])
    return width


def _max_seq_length(model: str, folder: Path, config: dict[str, Any], transformer: dict[str, Any]) -> int:
    tokenizer = _json(model, folder / "tokenizer_config.json") or {}
    positions = config.get("max_position_embeddings")
    # RoBERTa's positions start after its padding id
    usable = (
        positions - 2 if positions and config.get("model_type") in ("roberta", "xlm-roberta", "mpnet") else positions
    )
    candidates = [transformer.get("max_seq_length"), tokenizer.get("model_max_length"), usable]
    limits = [int(value) for value in candidates if value and value < _UNLIMITED]
    if not limits:
        raise ModelError(model, "its files name no maximum length; set encoder.max_seq_length")
    stated = limits[0]
    return min(stated, usable) if usable else stated


def _heads(model: str, folder: Path) -> list[dict[str, Any]]:
    modules = _json(model, folder / "modules.json")
    if modules is None:
        return []
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds[:1] != ["Transformer"] or modules[0]["path"]:
        raise ModelError(model, f"its first module is {kinds[:1]}, not a Transformer in the folder itself")
    return [_head(model, folder, kind, module) for kind, module in zip(kinds[1:], modules[1:], strict=True)]


def _head(model: str, folder: Path, kind: str, module: dict[str, Any]) -> dict[str, Any]:
    config = _json(model, folder / module["path"] / "config.json") or {}
    if kind == "Pooling":
        return {"type": "pooling", "modes": _modes(model, config), "include_prompt": config.get("include_prompt", True)}
    if kind == "Normalize":
        return {"type": "normalize"}
    if kind == "LayerNorm":
        return {"type": "layer_norm", "path": module["path"], "dimension": config["dimension"]}
    if kind == "Dense":
        return _dense(model, module["path"], config)
    raise ModelError(model, f"module {module['type']} is not one embatch runs")


def _modes(model: str, config: dict[str, Any]) -> list[str]:
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else list(named or [])
    modes = modes or [mode for key, mode in _LEGACY_POOLING.items() if config.get(key)]
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown or not modes:
        raise ModelError(model, f"pooling {unknown or 'without a mode'} is not one embatch knows")
    return modes


def _dense(model: str, path: str, config: dict[str, Any]) -> dict[str, Any]:
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS or config.get("use_residual"):
        raise ModelError(model, f"Dense in {path!r} with activation {activation} or a residual is not one embatch runs")
    return {
        "type": "dense",
        "path": path,
        "in_features": int(config["in_features"]),
        "out_features": int(config["out_features"]),
        "bias": bool(config.get("bias", True)),
        "activation": activation,
    }


def _json(model: str, path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(model, f"cannot read {path.name}: {error}") from error
