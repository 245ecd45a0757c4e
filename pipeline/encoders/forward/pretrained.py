"""A model of transformers, loaded whole onto a device, and the precision of its parts."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from pipeline.encoders.architecture import gte, nomic
from pipeline.encoders.architecture.families import family_of
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.files import remote_code
from pipeline.exceptions import ModelError

_UNUSED_WEIGHTS = ("pooler.",)
"""Parts a checkpoint may lack because no vector depends on them."""


def load_pretrained(spec: EncoderSpec, device: torch.device, **keys: Any) -> Any:
    """Load the encoder alone; `keys` go to transformers.

    Raises:
        ModelError: the weights cannot be loaded, or lack a tensor.
    """
    family = family_of(spec.model_type, remote_code=spec.remote_code)
    config = json.loads(Path(spec.folder, "config.json").read_text(encoding="utf-8"))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with remote_code.alone() if spec.remote_code else nullcontext():
            model, info = getattr(transformers, family.transformers_class).from_pretrained(
                spec.folder,
                dtype=torch.float16 if spec.dtype == "float16" else torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=spec.remote_code,
                output_loading_info=True,
                **({"add_pooling_layer": False} if family.pooler else {}),
                **({} if spec.remote_code else _translated(config)),
                **keys,
            )
    except remote_code.ERRORS as error:
        if isinstance(error, AttributeError | TypeError | SyntaxError) and not spec.remote_code:
            raise
        what = "its own code does not run here" if spec.remote_code else "cannot load the weights"
        raise ModelError(spec.model, f"{what}: {str(error).partition(chr(10))[0]}") from error
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(_UNUSED_WEIGHTS))
    if missing or info["mismatched_keys"]:
        wrong = missing or sorted(info["mismatched_keys"])
        raise ModelError(spec.model, f"the weights lack {len(wrong)} tensors, such as {wrong[0]}")
    if gte.is_published(config) and not spec.remote_code:
        model.rotary_emb.inv_freq = gte.scaled(model.rotary_emb.inv_freq, config)
    # decoders would keep every layer's keys and values for tokens that never come
    model.config.use_cache = False
    if spec.dtype == "bfloat16":
        _round_products(model, apart=family.exact_scores)
    return model.to(device).eval()


def products(spec: EncoderSpec, device: torch.device) -> AbstractContextManager[object]:
    """Run matrix products in bfloat16 and all between them in float32, the residual stream first of all."""
    family = family_of(spec.model_type, remote_code=spec.remote_code)
    if spec.dtype != "bfloat16" or family.exact_scores:
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _translated(config: dict[str, Any]) -> dict[str, Any]:
    if nomic.is_published(config):
        return {"config": transformers.NomicBertConfig(**nomic.translate(config))}
    if gte.is_published(config):
        return {"config": transformers.GteConfig(**gte.translate(config))}
    return {}


def _round_products(model: nn.Module, *, apart: bool) -> None:
    """Keep the weights of matrix products in bfloat16 once; embeddings and norms stay float32.

    `apart` rounds what goes into these products alone, and leaves those of attention in float32.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.to(torch.bfloat16)
            if apart:
                module.register_forward_pre_hook(_rounded)
                module.register_forward_hook(_widened)


def _rounded(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.to(torch.bfloat16) for x in inputs)


def _widened(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.float()
