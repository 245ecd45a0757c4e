"""Any supported transformers model, in length-sorted padded batches: the universal forward."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from pipeline.batching import token_batches
from pipeline.encoders import pooling
from pipeline.encoders.base import EncoderSpec, PreparedTexts, Progress, Vectors
from pipeline.encoders.families import family_of
from pipeline.exceptions import ModelError

_UNUSED_WEIGHTS = ("pooler.",)
"""Parts a checkpoint may lack because no vector depends on them."""


class PaddedEncoder:
    """One loaded copy of a model with its pooling and heads."""

    def __init__(self, spec: EncoderSpec, device: str, threads: int) -> None:
        if device == "cpu":
            torch.set_num_threads(threads)
        self._spec = spec
        self._device = torch.device(device)
        model = _load(spec)
        self._pad = model.config.pad_token_id or 0
        self._model = model.to(self._device).eval()
        self._heads = pooling.build_heads(spec, self._device)
        self._modes = spec.heads[0]["modes"]

    @torch.inference_mode()
    def encode(self, prepared: PreparedTexts, progress: Progress | None = None) -> Vectors:
        """Encode to float32 [n, dimension], in the order given."""
        lengths = prepared.n_tokens
        tokens = torch.from_numpy(np.array(prepared.token_ids, copy=True))
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        prompt_tokens = torch.from_numpy(np.array(prepared.rows["prompt_tokens"], dtype=np.int64))
        vectors = np.empty((len(lengths), self._spec.dimension), np.float32)
        for rows in token_batches(lengths, self._spec.max_batch_tokens):
            batch = [tokens[starts[row] : starts[row + 1]] for row in rows]
            vectors[rows] = self._forward(batch, prompt_tokens[rows]).cpu().numpy()
            if progress is not None:
                progress(len(rows), int(lengths[rows].sum()))
        return vectors

    def _forward(self, texts: list[Tensor], prompt_tokens: Tensor) -> Tensor:
        lengths = torch.tensor([len(text) for text in texts])
        ids = nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=self._pad).to(self._device)
        skipped = prompt_tokens.to(self._device) if bool(prompt_tokens.any()) else None
        lengths = lengths.to(self._device)
        inside = torch.arange(ids.shape[1], device=self._device) < lengths.unsqueeze(1)
        # without padding no mask is built, which is exact and faster
        mask = None if bool(inside.all()) else inside.long()
        with self._products():
            hidden = self._model(input_ids=ids.long(), attention_mask=mask).last_hidden_state
        vectors = pooling.pool(hidden[inside].float(), lengths, self._modes, skipped)
        for head in self._heads:
            vectors = head(vectors)
        return vectors

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
