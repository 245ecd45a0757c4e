"""From configuration to an encoder: resolve once on the driver, build in each process that needs a half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config import EncoderConfig
from pipeline.encoders import hashing, precision
from pipeline.encoders.base import Encoder, EncoderSpec, Preparer
from pipeline.encoders.model_files import locate
from pipeline.encoders.modules import ModuleChain, output_dimension, read_chain
from pipeline.encoders.precision import Device
from pipeline.exceptions import ConfigError, ModelError


def resolve(config: EncoderConfig, device: Device) -> EncoderSpec:
    """Turn what the job asks for into everything that decides the vectors; loads no weights.

    Raises:
        ConfigError: a key does not fit the model.
        ModelError: the model's files are missing or not ones embatch runs.
    """
    if config.model.startswith(hashing.PREFIX):
        return hashing.resolve(config.model, _constant_prompt(config, {}, None))
    folder = locate(config.model, config.revision)
    chain = read_chain(config.model, folder.path)
    heads = _heads(config, chain)
    return EncoderSpec(
        kind="transformer",
        model=config.model,
        revision=folder.revision,
        folder=str(folder.path),
        files=_files(config.model, folder.hashes()),
        model_type=str(chain.config.get("model_type")),
        dimension=output_dimension(heads, chain.config["hidden_size"]),
        max_seq_length=_max_seq_length(config, chain),
        lower_case=chain.lower_case,
        prompt=_constant_prompt(config, chain.prompts, chain.default_prompt_name),
        heads=heads,
        dtype=precision.resolve_dtype(config.dtype, device),
        max_batch_tokens=(
            precision.default_batch_tokens(device) if config.max_batch_tokens == "auto" else config.max_batch_tokens
        ),
        flops_per_token=_flops_per_token(chain.config),
    )


def restore(identity: dict[str, Any]) -> EncoderSpec:
    """Rebuild the spec of a plan on this node, its model files found and compared by sha256.

    Raises:
        ModelError: the files are not here or are not those of the plan.
    """
    if identity["kind"] == "hashing":
        return EncoderSpec.from_identity(identity, folder="")
    folder = locate(identity["model"], identity["revision"])
    folder.verify(identity["files"])
    return EncoderSpec.from_identity(identity, folder=str(folder.path))


def spec_of(identity: dict[str, Any]) -> EncoderSpec:
    """Rebuild the spec of a plan without looking for its files."""
    return EncoderSpec.from_identity(identity, folder="")


def weight_bytes(spec: EncoderSpec) -> int:
    """Return the size of a model's weight files on disk."""
    return sum(Path(spec.folder, name).stat().st_size for name in spec.files if name.endswith(".safetensors"))


def build_preparer(spec: EncoderSpec) -> Preparer:
    """Build the half that tokenizes; imports no torch."""
    if spec.kind == "hashing":
        return hashing.HashingEncoder(spec)
    from pipeline.encoders.tokenizer import TextTokenizer  # the hashing encoder needs no tokenizer

    return TextTokenizer(spec)


def build_encoder(spec: EncoderSpec, device: str, threads: int) -> Encoder:
    """Load the half that encodes onto a device (`cpu`, `cuda`).

    Raises:
        ModelError: the weights cannot be loaded there.
    """
    if spec.kind == "hashing":
        return hashing.HashingEncoder(spec)
    from pipeline.encoders.padded import PaddedEncoder  # torch: only where it is used

    return PaddedEncoder(spec, device, threads)


def _files(model: str, files: dict[str, str]) -> dict[str, str]:
    if not any(Path(name).suffix == ".safetensors" for name in files):
        raise ModelError(model, "has no safetensors weights; embatch does not read pickles")
    return files


def _heads(config: EncoderConfig, chain: ModuleChain) -> list[dict[str, Any]]:
    heads = [dict(head) for head in chain.heads]
    if config.pooling != "auto":
        heads = [head for head in heads if head["type"] != "pooling"]
        heads.insert(0, {"type": "pooling", "modes": [config.pooling], "include_prompt": True})
    if not heads or heads[0]["type"] != "pooling":
        raise ModelError(config.model, "its folder does not say how to pool; set encoder.pooling")
    return heads


def _max_seq_length(config: EncoderConfig, chain: ModuleChain) -> int:
    asked = config.max_seq_length
    positions = chain.config.get("max_position_embeddings")
    if asked is not None and positions and asked > positions:
        raise ConfigError("encoder.max_seq_length", f"{asked} is more than the model's {positions} positions")
    return asked or chain.max_seq_length


def _constant_prompt(config: EncoderConfig, named: dict[str, str], default: str | None) -> str:
    prompt = config.prompt
    if prompt is None:
        return named.get(default, "") if default else ""
    if prompt.name is not None:
        if prompt.name not in named:
            known = ", ".join(sorted(named)) or "none"
            raise ConfigError("encoder.prompt.name", f"the model names no prompt {prompt.name!r} (it has: {known})")
        return named[prompt.name]
    return prompt.text or ""


def _flops_per_token(config: dict[str, Any]) -> int:
    """Matrix-product FLOPs a token without attention scores: 2 L (4 d^2 + 2 d ff)."""
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    inner = config.get("intermediate_size", 4 * width)
    return int(2 * layers * (4 * width * width + 2 * width * inner))
