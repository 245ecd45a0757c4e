"""Any supported transformers model, in length-sorted padded batches: the universal forward."""

from __future__ import annotations

import numpy as np
import torch
import transformers
from torch import Tensor

from pipeline.batching import token_batches
from pipeline.encoders import pooling
from pipeline.encoders.base import EncoderSpec, PreparedTexts, Progress, Vectors
from pipeline.exceptions import ModelError

MODEL_TYPES = ("bert",)
_UNUSED_WEIGHTS = ("pooler.",)
"""Parts a checkpoint may lack because no vector depends on them."""


class PaddedEncoder:
    """One loaded copy of a model with its pooling and heads."""

    def __init__(self, spec: EncoderSpec, device: str, threads: int) -> None:
        if device == "cpu":
            torch.set_num_threads(threads)
        self._spec = spec
        self._device = torch.device(device)
        self._model = _load(spec).to(self._device).eval()
        self._heads = pooling.build_heads(spec, self._device)
        self._pooling = spec.heads[0]

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
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True).to(self._device)
        lengths, prompt_tokens = lengths.to(self._device), prompt_tokens.to(self._device)
        inside = torch.arange(ids.shape[1], device=self._device) < lengths.unsqueeze(1)
        # without padding no mask is built, which is exact and faster
        mask = None if bool(inside.all()) else inside.long()
        hidden = self._model(input_ids=ids.long(), attention_mask=mask).last_hidden_state
        states = hidden[inside].float()
        if not self._pooling["include_prompt"]:
            states, lengths = pooling.drop_prompts(states, lengths, prompt_tokens)
        vectors = pooling.pool(states, lengths, self._pooling["modes"])
        for head in self._heads:
            vectors = head(vectors)
        return vectors


def _load(spec: EncoderSpec) -> torch.nn.Module:
    if spec.model_type not in MODEL_TYPES:
        raise ModelError(spec.model, f"architecture {spec.model_type!r} is not one of {', '.join(MODEL_TYPES)}")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, info = transformers.AutoModel.from_pretrained(
            spec.folder,
            dtype=getattr(torch, spec.dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(spec.model, f"cannot load the weights: {str(error).splitlines()[0]}") from error
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(_UNUSED_WEIGHTS))
    if missing or info["mismatched_keys"]:
        wrong = missing or sorted(info["mismatched_keys"])
        raise ModelError(spec.model, f"the weights lack {len(wrong)} tensors, such as {wrong[0]}")
    loaded: torch.nn.Module = model
    return loaded
