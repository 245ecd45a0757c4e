"""Read a model folder's configuration: the sentence-transformers module chain, limits and prompts.

Understands both the older configuration files and those of sentence-transformers 6. A module or setting it
does not know is refused by name, never approximated.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.encoders.architecture.families import Architecture, family_of, read_architecture
from pipeline.encoders.files import layout, remote_code
from pipeline.exceptions import ConfigError, ModelError

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
_TRANSFORMER_FILES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
_CONTRIEVER = re.compile(r"(^|/)facebook/m?contriever[^/]*/?$")
"""Published without a module chain: mean pooling, not normalised."""
_SIMCSE = re.compile(r"(^|/)princeton-nlp/(?P<un>un)?sup-simcse-[^/]*/?$")
"""As published without one: the first token, and after supervised training the model's own pooler (simcse/tool.py)."""
_UNLIMITED = 100_000
_ARGUMENTS = (
    *("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "processing_kwargs"),
    *("config_args", "config_kwargs"),
)
"""What a Transformer module hands on to transformers; keys that the model's class does not take change its config."""
_HARMLESS = {"attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "padding_side", "torch_dtype"} | {
    *("trust_remote_code", "use_fast", "use_safetensors"),
}
_STATES = {"method": "forward", "method_output_name": "last_hidden_state"}
_STATE_NAMES = ("last_hidden_state", ["last_hidden_state"], None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleChain:
    """What a model folder says of itself; `heads` is empty where it says nothing of pooling.

    A pooling head's `include_prompt` is None where its file does not say. `max_seq_length` is None where
    no file bounds a text. `remote_code` says that the model's own code computes it. `truncate_dim` is how many numbers
    of each vector the model's files keep, None for all.
    """

    architecture: Architecture
    max_seq_length: int | None
    lower_case: bool
    heads: list[dict[str, Any]]
    prompts: dict[str, str]
    default_prompt_name: str | None
    remote_code: bool
    truncate_dim: int | None


def read_chain(model: str, folder: Path, *, trusted: bool = False) -> ModuleChain:
    """Read the chain of modules in a folder; where it is `trusted`, code that it brings along may compute it.

    No weights need be there yet: `require_weights` asks for them.

    Raises:
        ConfigError: code is trusted that is never needed.
        ModelError: a file is missing or malformed, or a module is not one embatch runs.
    """
    config = _json(model, folder / "config.json")
    if config is None:
        raise ModelError(model, f"no config.json in {str(folder)!r}")
    if not any((folder / name).is_file() for name in (layout.TOKENIZER, layout.VOCABULARY)):
        reason = (
            "save_pretrained of the installed transformers' AutoTokenizer writes one, into a copy of the model's folder"
        )
        raise ModelError(model, f"no {layout.TOKENIZER} in {str(folder)!r}; {reason}")
    brought = remote_code.is_asked(config, trusted=trusted)
    if brought and family_of(str(config.get("model_type"))).adopted and "--" in str(config["auto_map"]):
        reason = "transformers has this model, and its code in another repository is not run"
        raise ConfigError("encoder.trust_remote_code", f"{reason}; leave this key out")
    if brought:
        remote_code.check(model, folder, config)
    prompts = _json(model, folder / "config_sentence_transformers.json") or {}
    _refuse_other_kinds(model, config, prompts, chained=(folder / "modules.json").is_file())
    architecture = read_architecture(model, config, remote_code=brought)
    transformer = _transformer(model, folder)
    return ModuleChain(
        architecture=architecture,
        max_seq_length=_max_seq_length(model, folder, architecture.positions, transformer),
        lower_case=bool(transformer.get("do_lower_case", False)),
        heads=_heads(model, folder, architecture.width),
        prompts=dict(prompts.get("prompts") or {}),
        default_prompt_name=prompts.get("default_prompt_name"),
        remote_code=brought,
        truncate_dim=prompts.get("truncate_dim"),
    )


def output_dimension(model: str, heads: list[dict[str, Any]], width: int) -> int:
    """Follow the width of a vector through the heads.

    Raises:
        ModelError: a head does not take what the one before it gives.
    """
    for head in heads:
        if head["type"] == "pooling":
            width *= len(head["modes"])
            continue
        expected = head.get("in_features", head.get("dimension", width))
        if expected != width:
            raise ModelError(model, f"module {head['path']} takes {expected} numbers a vector, but gets {width}")
        width = head.get("out_features", width)
    return width


def require_weights(model: str, folder: Path, heads: list[dict[str, Any]]) -> None:
    """Refuse a folder where a module's weights are missing.

    Raises:
        ModelError: naming the file.
    """
    for head in heads:
        if "path" in head and not (folder / head["path"] / "model.safetensors").is_file():
            raise ModelError(model, f"no {head['path']}/model.safetensors in {str(folder)!r}")


def require_width(truncate_dim: int | None, width: int) -> None:
    """Refuse to keep more numbers of a vector than it has.

    Raises:
        ConfigError: naming both.
    """
    if truncate_dim is not None and truncate_dim > width:
        raise ConfigError("encoder.truncate_dim", f"{truncate_dim} is more than the {width} numbers of a vector")


def _refuse_other_kinds(model: str, config: dict[str, Any], saved: dict[str, Any], *, chained: bool) -> None:
    """Refuse models that give scores, or a vector a token, where pooling would make vectors nobody meant."""
    kind = saved.get("model_type", "SentenceTransformer")
    heads = [name for name in config.get("architectures") or [] if name.endswith("ForSequenceClassification")]
    if kind == "SentenceTransformer" and heads and not chained:
        kind = f"{heads[0]}, a cross-encoder or classifier"
    elif kind == "SentenceTransformer":
        return
    reason = "it scores texts or pairs of them, or has a vector a token"
    raise ModelError(model, f"it is a {kind}: {reason}; embatch runs models with one vector a text")


def _transformer(model: str, folder: Path) -> dict[str, Any]:
    files = (folder / f"sentence_{name}_config.json" for name in _TRANSFORMER_FILES)
    config: dict[str, Any] = next(filter(None, (_json(model, path) for path in files)), {})
    task = config.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise ModelError(model, f"its Transformer module runs task {task!r}; embatch runs feature-extraction only")
    given = sorted(
        f"{section}.{key}" for section in _ARGUMENTS for key in config.get(section) or {} if key not in _HARMLESS
    )
    given += [key for key in ("query_expansion", "tokenizer_name_or_path") if config.get(key)]
    if given:
        raise ModelError(model, f"its Transformer module sets {', '.join(given)}, which embatch does not apply")
    output = (config.get("modality_config") or {}).get("text", _STATES)
    if output.get("method", "forward") != "forward" or output.get("method_output_name") not in _STATE_NAMES:
        raise ModelError(model, f"its Transformer module takes {output} of a model; embatch takes token states only")
    return config


def _max_seq_length(model: str, folder: Path, positions: int | None, transformer: dict[str, Any]) -> int | None:
    tokenizer = _json(model, folder / "tokenizer_config.json") or {}
    candidates = [transformer.get("max_seq_length"), tokenizer.get("model_max_length"), positions]
    limits = [int(value) for value in candidates if value and value < _UNLIMITED]
    if not limits:
        return None
    return min(limits[0], positions) if positions else limits[0]


def _heads(model: str, folder: Path, width: int) -> list[dict[str, Any]]:
    modules = _json(model, folder / "modules.json")
    if modules is None:
        return _heads_by_name(model, width)
    kinds = [_kind(model, str(module["type"])) for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or PurePosixPath(modules[0]["path"]).parts:
        chain = ", ".join(kinds)
        raise ModelError(
            model, f"its modules are {chain}; embatch runs a Transformer in the folder itself, then Pooling"
        )
    return [_head(model, folder, kind, module["path"]) for kind, module in zip(kinds[1:], modules[1:], strict=True)]


def _heads_by_name(model: str, width: int) -> list[dict[str, Any]]:
    """Return the heads of models that are published without a module chain; none where nobody says."""
    simcse = _SIMCSE.search(model)
    if simcse is None and not _CONTRIEVER.search(model):
        return []
    heads: list[dict[str, Any]] = [
        {"type": "pooling", "modes": ["cls" if simcse else "mean"], "include_prompt": None},
    ]
    if simcse is not None and simcse["un"] is None:
        heads.append({"type": "pooler", "in_features": width, "out_features": width})
    return heads


def _kind(model: str, dotted: str) -> str:
    kind = dotted.rpartition(".")[2]
    # a class of the same name in the model's own code is another module
    if not dotted.startswith("sentence_transformers.") or kind not in _READERS | {"Transformer": None}:
        raise ModelError(model, f"module {dotted} is not one embatch runs")
    return kind


def _head(model: str, folder: Path, kind: str, path: str) -> dict[str, Any]:
    config = _json(model, folder / path / "config.json") or {}
    reads = config.get("module_input_name", "sentence_embedding"), config.get("module_output_name")
    if reads[0] != "sentence_embedding" or reads[1] not in (None, "sentence_embedding"):
        raise ModelError(model, f"{kind} in {path!r} works on {reads[0]}; embatch runs it on sentence_embedding only")
    try:
        return _READERS[kind](model, path, config)
    except KeyError as error:
        raise ModelError(model, f"{path}/config.json lacks the key {error}") from error


def _pooling(model: str, path: str, config: dict[str, Any]) -> dict[str, Any]:
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else list(named or [])
    # a file that names no mode means the mean, as sentence-transformers always had it
    modes = modes or [mode for key, mode in _LEGACY_POOLING.items() if config.get(key)] or ["mean"]
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown:
        raise ModelError(model, f"pooling {unknown} in {path!r} is not one embatch knows")
    return {"type": "pooling", "modes": modes, "include_prompt": config.get("include_prompt")}


def _normalize(_model: str, _path: str, _config: dict[str, Any]) -> dict[str, Any]:
    return {"type": "normalize"}


def _layer_norm(_model: str, path: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"type": "layer_norm", "path": path, "dimension": int(config["dimension"])}


def _dense(model: str, path: str, config: dict[str, Any]) -> dict[str, Any]:
    dotted = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = dotted.rpartition(".")[2]
    if activation not in ACTIVATIONS or not dotted.startswith("torch.") or config.get("use_residual"):
        raise ModelError(model, f"Dense in {path!r} with activation {dotted} or a residual is not one embatch runs")
    return {
        "type": "dense",
        "path": path,
        "in_features": int(config["in_features"]),
        "out_features": int(config["out_features"]),
        "bias": bool(config.get("bias", True)),
        "activation": activation,
    }


_READERS = {"Pooling": _pooling, "Normalize": _normalize, "LayerNorm": _layer_norm, "Dense": _dense}


def _json(model: str, path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(model, f"cannot read {path.name}: {error}") from error
