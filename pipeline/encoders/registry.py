"""From configuration to an encoder: resolve once on the driver, build in each process that needs a half."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import EncoderConfig, RemoteConfig
from pipeline.encoders import backends, hashing, precision
from pipeline.encoders.architecture.modules import (
    ModuleChain,
    output_dimension,
    read_chain,
    require_weights,
    require_width,
)
from pipeline.encoders.base import Brackets, Encoder, EncoderSpec, Preparer, PromptPooling
from pipeline.encoders.files.locating import locate, relocate
from pipeline.encoders.precision import Device
from pipeline.encoders.tokens import brackets, prompts
from pipeline.exceptions import ConfigError, ModelError

if TYPE_CHECKING:
    import torch

    from pipeline.encoders.forward.transformer import Forward

_NORMED_FIRST = re.compile(r"(^|/)nomic-ai/nomic-embed-text-v1\.5/?$")
"""Trained to be truncated after a layer norm without weights, which its files do not name (its README does)."""
WEIGHT_COPIES = 3
"""Memory a CPU replica may take, in sizes of its weights: load, run, activations."""


def resolve(config: EncoderConfig, device: Device) -> EncoderSpec:
    """Turn what the job asks for into everything that decides the vectors; loads no weights.

    Raises:
        ConfigError: a key does not fit the model.
        ModelError: the model's files are missing or not ones embatch runs.
    """
    if config.remote is not None:
        from pipeline.encoders.remote.resolving import resolve as resolve_remote  # the HTTP client

        return resolve_remote(config.model, config.remote, prompts.constant_prompt(config.prompt, {}, None))
    if config.model.startswith(hashing.PREFIX):
        return hashing.resolve(config.model, prompts.constant_prompt(config.prompt, {}, None), config.truncate_dim)
    prompts.require_named(config.model, config.prompt)
    around = brackets.resolve(config.brackets, config.model)

    drafts: list[EncoderSpec] = []

    def draft(folder: Path) -> None:
        drafts.append(_draft(config, device, around, folder))

    # what does not fit is refused by the small files, before gigabytes are brought here
    folder = locate(
        config.model,
        config.revision,
        convert_pickle=config.convert_pickle,
        remote_code=config.trust_remote_code,
        check=draft,
    )
    if not drafts:  # all was here
        draft(folder.path)
    (spec,) = drafts
    require_weights(config.model, folder.path, spec.heads)
    return replace(spec, folder=str(folder.path), revision=folder.revision, files=folder.hashes())


def _draft(config: EncoderConfig, device: Device, around: Brackets | None, folder: Path) -> EncoderSpec:
    """Decide all but what the weights' own files say, from a folder that may still lack them."""
    chain = read_chain(config.model, folder, trusted=config.trust_remote_code)
    prompts.require_for_documents(config.prompt, chain.prompts, chain.default_prompt_name)
    architecture = chain.architecture
    heads = _truncated(config, chain, _heads(config, chain))
    dtype = precision.resolve_dtype(config.dtype, device, architecture.model_type, remote_code=chain.remote_code)
    backend, reason = backends.choose(config, architecture, dtype, device)
    spec = EncoderSpec(
        kind="transformer",
        model=config.model,
        revision=None,
        folder=str(folder),
        files={},
        model_type=architecture.model_type,
        dimension=output_dimension(config.model, heads, architecture.width),
        max_seq_length=_max_seq_length(config, chain),
        lower_case=chain.lower_case,
        prompt=prompts.constant_prompt(config.prompt, chain.prompts, chain.default_prompt_name),
        heads=heads,
        dtype=dtype,
        backend=backend,
        backend_reason=reason,
        max_batch_tokens=(
            precision.default_batch_tokens(device) if config.max_batch_tokens == "auto" else config.max_batch_tokens
        ),
        flops_per_token=architecture.flops_per_token,
        prompt_pooling=_prompt_pooling(config, chain, heads),
        brackets=around,
        remote_code=chain.remote_code,
    )
    _check_prompt(config, spec)
    return spec


def restore(identity: dict[str, Any], *, weights: bool = True) -> EncoderSpec:
    """Rebuild the spec of a plan on this node, its model files found and compared by sha256.

    Without `weights` only the files that a tokenizer reads are compared.

    Raises:
        ModelError: the files are not here or are not those of the plan.
    """
    if identity["kind"] in ("hashing", "remote"):
        return EncoderSpec.from_identity(identity, folder="")
    folder = relocate(identity["model"], identity["revision"], identity["files"], weights=weights)
    return EncoderSpec.from_identity(identity, folder=str(folder.path))


def spec_of(identity: dict[str, Any]) -> EncoderSpec:
    """Rebuild the spec of a plan without looking for its files."""
    return EncoderSpec.from_identity(identity, folder="")


def _weight_bytes(spec: EncoderSpec) -> int:
    """Return the size of a model's weight files on disk."""
    return sum(Path(spec.folder, name).stat().st_size for name in spec.files if name.endswith(".safetensors"))


def replicas_that_fit(spec: EncoderSpec, cpus: int, memory_bytes: int) -> int:
    """Return how many CPU replicas a machine runs: one a core, as far as its memory goes, at least one.

    One replica makes all requests to a hosted model, so that it knows how far its rate limits are used.
    """
    if spec.kind == "remote":
        return 1
    weights = WEIGHT_COPIES * _weight_bytes(spec)
    return max(min(cpus, memory_bytes // weights if weights else cpus), 1)


def build_preparer(spec: EncoderSpec) -> Preparer:
    """Build the half that tokenizes; imports no torch."""
    if spec.kind == "hashing":
        return hashing.HashingEncoder(spec)
    if spec.kind == "remote":
        from pipeline.encoders.remote.preparing import RemotePreparer

        return RemotePreparer(spec)
    from pipeline.encoders.tokens.tokenizer import TextTokenizer  # the others need no tokenizer

    return TextTokenizer(spec)


def build_encoder(spec: EncoderSpec, device: str, threads: int, remote: RemoteConfig | None = None) -> Encoder:
    """Load the half that encodes onto a device (`cpu`, `cuda`); that of a hosted model is told where `remote` is.

    Raises:
        ModelError: the weights cannot be loaded there.
        ConfigError: the key of a hosted model is not on this node.
    """
    if spec.kind == "hashing":
        return hashing.HashingEncoder(spec)
    if remote is not None:
        from pipeline.encoders.remote.encoder import RemoteEncoder

        return RemoteEncoder(spec, remote)
    import torch  # two seconds; only where it is used

    from pipeline.encoders.forward.transformer import TransformerEncoder

    precision.require_dtype(spec.model, spec.dtype, device)

    if device == "cpu":
        torch.set_num_threads(threads)
    return TransformerEncoder(spec, _build_forward(spec, torch.device(device)), torch.device(device))


def _build_forward(spec: EncoderSpec, device: torch.device) -> Forward:
    if spec.backend == "packed":
        from pipeline.encoders.packed.building import build_packed

        return build_packed(spec, device)
    from pipeline.encoders.forward.padded import PaddedForward  # transformers takes seconds to import

    return PaddedForward(spec, device)


def _heads(config: EncoderConfig, chain: ModuleChain) -> list[dict[str, Any]]:
    """Return the heads without what concerns prompts, which `EncoderSpec.prompt_pooling` holds."""
    heads = [{key: value for key, value in head.items() if key != "include_prompt"} for head in chain.heads]
    if config.pooling != "auto":
        heads = [{"type": "pooling", "modes": [config.pooling]}, *heads[1:]]
    if not heads:
        raise ModelError(config.model, "its folder does not say how to pool; set encoder.pooling")
    return heads


def _truncated(config: EncoderConfig, chain: ModuleChain, heads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cut vectors after all modules, as sentence-transformers does; a chain that ends in length 1 still does."""
    width = output_dimension(config.model, heads, chain.architecture.width)
    kept = config.truncate_dim or min(chain.truncate_dim or width, width)
    require_width(config.truncate_dim, width)
    if kept == width:
        return heads
    before = [{"type": "plain_layer_norm"}] if _NORMED_FIRST.search(config.model) else []
    again = [heads[-1]] if heads[-1]["type"] == "normalize" else []
    return [*heads, *before, {"type": "truncate", "out_features": kept}, *again]


def _max_seq_length(config: EncoderConfig, chain: ModuleChain) -> int:
    asked, positions = config.max_seq_length, chain.architecture.positions
    if asked is not None and positions and asked > positions:
        raise ConfigError("encoder.max_seq_length", f"{asked} is more than the model's {positions} positions")
    limit = asked or chain.max_seq_length
    if limit is None:
        raise ModelError(config.model, "its files name no maximum length; set encoder.max_seq_length")
    return limit


def _prompt_pooling(config: EncoderConfig, chain: ModuleChain, heads: list[dict[str, Any]]) -> PromptPooling:
    return prompts.resolve_pooling(
        config.prompt_pooling,
        config.model,
        include_prompt=chain.heads[0]["include_prompt"] if chain.heads else None,
        model_type=chain.architecture.model_type,
        dense=any(head["type"] == "dense" for head in heads),
    )


def _check_prompt(config: EncoderConfig, spec: EncoderSpec) -> None:
    """Refuse, before any row is read, a prompt the model cannot take."""
    preparer = build_preparer(spec)
    if config.prompt is not None and config.prompt.per_row:
        prompts.refuse_unknown(spec.prompt_pooling)
        brackets.refuse_prompt(spec.brackets)
    if spec.brackets is not None and spec.max_seq_length < brackets.LEAST_TOKENS:
        reason = f"{spec.max_seq_length} leaves no room for a text between its brackets"
        raise ConfigError("encoder.max_seq_length", reason)
    if preparer.prepare(["a"]).no_room[0]:
        reason = f"fills all {spec.max_seq_length} tokens the model reads and leaves no room for a text"
        raise ConfigError("encoder.prompt", reason)
