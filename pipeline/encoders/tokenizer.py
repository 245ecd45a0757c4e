"""Texts to token ids with the model's own fast tokenizer; exact truncation, also of very long texts.

A text is truncated to exactly what tokenizing the whole of it and cutting would give, but only a
prefix is tokenized where one is known to have the text's first tokens.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.encoders import prompts as prompting
from pipeline.encoders.base import EncoderSpec, PreparedTexts

CHARACTERS_PER_TOKEN = 6
"""First guess at a prefix that surely fills the limit; raised until it does."""


class TextTokenizer:
    """The preparing half of every transformer encoder."""

    def __init__(self, spec: EncoderSpec) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one thread a task: Ray runs several
        from pipeline.encoders.cutting import TextCutter  # both import tokenizers, which reads the variable
        from pipeline.encoders.tokenizer_files import load_tokenizer

        self._spec = spec
        self._tokenizer = load_tokenizer(spec)
        self._cutter = TextCutter(self._tokenizer)
        self._suffix = self._special_suffix()

    @property
    def room(self) -> int:
        """Tokens a text may have besides those that end every text."""
        return self._spec.max_seq_length - len(self._suffix)

    def prepare(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> PreparedTexts:
        """Tokenize prompt + text.

        `prompt_tokens` int32 counts the leading tokens that pooling leaves out; `no_room` bool is true
        where the prompt alone fills the limit.
        """
        if prompts is None:
            prompts = [self._spec.prompt] * len(texts)
        if any(prompts):
            prompting.refuse_unknown(self._spec.prompt_pooling)
        pooling, limit = self._spec.prompt_pooling, self._spec.max_seq_length
        full = [prompting.join(prompt, text, pooling) for prompt, text in zip(prompts, texts, strict=True)]
        encoded = self._encode(full)
        whole = [encoding.ids for encoding in encoded]
        lengths = list(map(len, whole))
        keep = self.room
        ids = [row if len(row) <= limit else row[:keep] + self._suffix for row in whole]
        lost = [
            len(text) - encoding.offsets[keep - 1][1] if length > limit else 0
            for text, encoding, length in zip(full, encoded, lengths, strict=True)
        ]
        counts = self._count_prompts(prompts)
        rows = {
            "n_tokens": pa.array([len(row) for row in ids], pa.int32()),
            "truncated": pa.array([length > limit for length in lengths], pa.bool_()),
            "chars": pa.array([len(text) for text in full], pa.int32()),
            "chars_lost": pa.array(lost, pa.int32()),
            "prompt_tokens": pa.array([prompting.left_out(counts[prompt], pooling) for prompt in prompts], pa.int32()),
            "no_room": pa.array([bool(prompt) and counts[prompt] >= keep for prompt in prompts], pa.bool_()),
        }
        flat = np.fromiter((token for row in ids for token in row), np.int32, sum(map(len, ids)))
        return PreparedTexts(rows=rows, token_ids=pa.array(flat))

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        """Return each text's encoding: whole, or of a prefix with more tokens than the limit; then with offsets."""
        limit = self._spec.max_seq_length
        encoded: list[Any] = [None] * len(texts)
        prefixes = list(texts)
        waiting = list(range(len(texts)))
        size = limit * CHARACTERS_PER_TOKEN
        while waiting:
            for index in waiting:
                prefixes[index] = self._cutter.prefix(texts[index], size)
            cut = [index for index in waiting if len(prefixes[index]) < len(texts[index])]
            whole = [index for index in waiting if len(prefixes[index]) == len(texts[index])]
            self._encode_into(encoded, prefixes, whole, offsets=False)
            self._encode_into(encoded, prefixes, [row for row in whole if len(encoded[row]) > limit], offsets=True)
            self._encode_into(encoded, prefixes, cut, offsets=True)
            waiting = [row for row in cut if len(encoded[row]) <= limit]
            size *= 4
        return encoded

    def _encode_into(self, encoded: list[Any], texts: list[str], rows: list[int], *, offsets: bool) -> None:
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        for row, encoding in zip(rows, encode([texts[row] for row in rows]), strict=True):
            encoded[row] = encoding

    def _count_prompts(self, prompts: Sequence[str]) -> dict[str, int]:
        """Count each prompt's tokens as the references do: the prompt alone, without its end token."""
        distinct = sorted(set(filter(None, prompts)))
        alone = self._encode([prompting.counted(prompt, self._spec.prompt_pooling) for prompt in distinct])
        counts = {prompt: len(encoding) - len(self._suffix) for prompt, encoding in zip(distinct, alone, strict=True)}
        return {"": 0, **counts}

    def _special_suffix(self) -> list[int]:
        sample = self._tokenizer.encode("a")
        tail: list[int] = []
        for token, special in zip(reversed(sample.ids), reversed(sample.special_tokens_mask), strict=True):
            if not special:
                break
            tail.insert(0, token)
        return tail
