"""Encoders in this process, each behind the same small face: `take` texts once, then `encode` them as often as asked.

`source` says what the time of a contender covers: `token ids` are handed over tokenized and leave out the tokenizer,
`texts` are tokenized inside, by all cores. Vectors come back as float32 on the host, in order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
import transformers
from benchmarks.gpu.lengths import Work
from benchmarks.speed.models import Model
from benchmarks.speed.processes import ContenderError
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from pipeline.config import EncoderConfig
from pipeline.encoders import precision, registry
from pipeline.encoders.architecture.families import family_of
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.forward.batching import token_batches
from pipeline.encoders.forward.pooling import build_heads
from pipeline.encoders.loading import LoadedEncoder

Source = Literal["token ids", "texts"]


class Engine(Protocol):
    """A loaded model; `settings` says how it runs."""

    settings: str

    def take(self, work: Work) -> None:
        """Prepare what no contender's time covers."""

    def encode(self, source: Source, **options: Any) -> np.ndarray:
        """Encode what was taken."""


def spec_of(model: Model, device: str) -> EncoderSpec:
    """Resolve a model as a job with no other keys would."""
    return registry.resolve(EncoderConfig(model=model.name, prompt=model.prompt), precision.detect(device))


class Embatch:
    """As `load_encoder` gives it: whatever `auto` decides on this device."""

    def __init__(self, spec: EncoderSpec, device: str) -> None:
        self._preparer = registry.build_preparer(spec)
        self._encoder = registry.build_encoder(spec, device, os.cpu_count() or 1)
        self._loaded = LoadedEncoder(spec, self._preparer, self._encoder)
        self.settings = f"{spec.dtype}, {spec.backend}, {spec.max_batch_tokens:,} tokens a batch"

    def take(self, work: Work) -> None:
        """Keep texts and tokens."""
        self._work = work

    def encode(self, source: Source) -> np.ndarray:
        """Encode tokens as an actor of a job does, or texts as a program does."""
        if source == "texts":
            return self._loaded.encode(self._work.texts)
        return self._encoder.encode(self._work.prepared)


class _Tokenized(SentenceTransformer):
    """Its own `encode`, with tokens that are looked up where `tokens` holds them."""

    tokens: dict[str, Tensor] | None = None
    constant: dict[str, Any]
    pad: int
    looked_up = 0

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        if self.tokens is None:
            return super().preprocess(inputs, prompt=prompt, **kwargs)
        self.looked_up += len(inputs)
        rows = [self.tokens[text] for text in inputs]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad)
        lengths = torch.tensor([len(row) for row in rows])
        inside = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return {**self.constant, "input_ids": ids, "attention_mask": inside}


class SentenceTransformers:
    """Its own `encode`, which sorts by length itself; in float32 the reference of all."""

    def __init__(self, model: Model, device: str, dtype: str) -> None:
        kwargs = {"dtype": getattr(torch, dtype)}
        self._model = _Tokenized(str(model.folder), device=device, model_kwargs=kwargs, local_files_only=True)
        self._model.pad = self._model.tokenizer.pad_token_id
        self._prompt = model.prompt
        self.settings = f"{dtype}, {_attention(self._model[0].auto_model)}"

    def take(self, work: Work) -> None:
        """Keep texts, and the tokens of each."""
        features = self._model.preprocess(work.texts[:1], prompt=self._prompt)
        self._constant = {key: value for key, value in features.items() if not isinstance(value, Tensor)}
        ids = torch.from_numpy(np.asarray(work.prepared.token_ids).astype(np.int64))
        self._tokens = dict(zip(work.texts, torch.split(ids, work.lengths.tolist()), strict=True))
        self._texts = work.texts

    def encode(self, source: Source, batch_size: int = 32, *, convert_to_tensor: bool = False) -> np.ndarray:
        """Encode; with `convert_to_tensor` no batch waits for its vectors to be on the host."""
        model = self._model
        model.constant, model.looked_up = self._constant, 0
        model.tokens = self._tokens if source == "token ids" else None
        try:
            found = model.encode(
                self._texts,
                prompt=self._prompt,
                batch_size=batch_size,
                convert_to_tensor=convert_to_tensor,
                show_progress_bar=False,
            )
        finally:
            model.tokens = None
        if source == "token ids" and model.looked_up != len(self._texts):
            raise ContenderError("this version does not take tokens by `preprocess`")
        return found.float().cpu().numpy() if isinstance(found, Tensor) else found.astype(np.float32)


class Transformers:
    """The plain model of transformers: sorted by tokens, padded batches by a token budget, nothing waited for between.

    Mean pooling in float32, then the model's own heads.
    """

    def __init__(self, spec: EncoderSpec, device: str) -> None:
        family = family_of(spec.model_type)
        self._device = torch.device(device)
        model = getattr(transformers, family.transformers_class).from_pretrained(
            spec.folder,
            dtype=getattr(torch, spec.dtype),
            local_files_only=True,
            **({"add_pooling_layer": False} if family.pooler else {}),
        )
        self._model = model.to(self._device).eval()
        self._heads: list[Callable[[Tensor], Tensor]] = build_heads(spec, self._device)
        self._pad = model.config.pad_token_id or 0
        self.settings = f"{spec.dtype}, {_attention(model)}"

    def take(self, work: Work) -> None:
        """Keep the tokens."""
        self._lengths = work.lengths
        ids = np.asarray(work.prepared.token_ids).astype(np.int64)
        self._rows = np.split(ids, np.cumsum(self._lengths)[:-1])
        self._left_out = np.asarray(work.prepared.rows["prompt_tokens"]).astype(np.int64)

    @torch.inference_mode()
    def encode(self, source: Source, max_batch_tokens: int = 16_384) -> np.ndarray:
        """Encode tokens; there is no tokenizer here."""
        if source != "token ids":
            raise ContenderError("takes token ids only")
        batches = token_batches(self._lengths.astype(np.int32), max_batch_tokens)
        vectors = torch.cat([self._batch(rows) for rows in batches]).cpu().numpy()
        ordered = np.empty_like(vectors)
        ordered[np.concatenate(batches)] = vectors
        return ordered

    def _batch(self, rows: np.ndarray) -> Tensor:
        lengths = self._lengths[rows]
        places = np.arange(lengths.max())
        inside = places < lengths[:, None]
        ids = np.full(inside.shape, self._pad, np.int64)
        ids[inside] = np.concatenate([self._rows[row] for row in rows])
        pooled = self._send(inside & (places >= self._left_out[rows][:, None])).unsqueeze(2)
        mask = None if inside.all() else self._send(inside.astype(np.int64))
        hidden = self._model(input_ids=self._send(ids), attention_mask=mask).last_hidden_state
        vectors = (hidden * pooled).sum(1, dtype=torch.float32) / pooled.sum(1)
        for head in self._heads:
            vectors = head(vectors)
        return vectors

    def _send(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)


def _attention(model: nn.Module) -> str:
    """Name the attention that transformers has chosen."""
    return f"{getattr(model.config, '_attn_implementation', 'eager')} attention"
