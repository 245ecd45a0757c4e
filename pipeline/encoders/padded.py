"""Any supported transformers model, in length-sorted padded batches: the universal forward."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from pipeline.batching import token_batches
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.families import family_of
from pipeline.exceptions import ModelError

_UNUSED_WEIGHTS = ("pooler.",)
"""Parts a checkpoint may lack because no vector depends on them."""


class PaddedForward:
    """A model of transformers."""

    batches = staticmethod(token_batches)

    def __init__(self, spec: EncoderSpec, device: torch.device) -> None:
        self._spec, self._device = spec, device
        model = _load(spec)
        self._pad = model.config.pad_token_id or 0
        self._model = model.to(device).eval()

    def states(self, ids: Tensor, lengths: list[int]) -> Tensor:
        """Pad, run, and drop the padding again; float32 [tokens, width]."""
        ids = ids.to(self._device)
        padded = nn.utils.rnn.pad_sequence(list(torch.split(ids, lengths)), batch_first=True, padding_value=self._pad)
        inside = (
            torch.arange(padded.shape[1], device=self._device) < torch.tensor(lengths, device=self._device)[:, None]
        )
        # without padding no mask is built, which is exact and faster
        mask = None if min(lengths) == max(lengths) else inside.long()
        with self._products():
            hidden: Tensor = self._model(input_ids=padded, attention_mask=mask).last_hidden_state
        return hidden[inside].float()

    def _products(self) -> AbstractContextManager[object]:
        """Run matrix products in bfloat16 and all between them in float32, the residual stream first of all."""
        if self._spec.dtype != "bfloat16":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


def _load(spec: EncoderSpec) -> Any:
    family = family_of(spec.model_type)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, info = getattr(transformers, family.transformers_class).from_pretrained(
            spec.folder,
            dtype=torch.float16 if spec.dtype == "float16" else torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **({"add_pooling_layer": False} if family.pooler else {}),
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(spec.model, f"cannot load the weights: {str(error).splitlines()[0]}") from error
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(_UNUSED_WEIGHTS))
    if missing or info["mismatched_keys"]:
        wrong = missing or sorted(info["mismatched_keys"])
        raise ModelError(spec.model, f"the weights lack {len(wrong)} tensors, such as {wrong[0]}")
    if spec.dtype == "bfloat16":
        _round_products(model)
    return model


def _round_products(model: nn.Module) -> None:
    """Keep the weights of matrix products in bfloat16 once; embeddings and norms stay float32."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.to(torch.bfloat16)
