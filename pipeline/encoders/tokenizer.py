"""Texts to token ids with the model's own fast tokenizer; exact truncation, also of very long texts.

A text is truncated to exactly what tokenizing the whole of it and cutting would give, but only a
prefix is tokenized: cut before white space, a prefix's tokens are the text's first tokens.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.encoders.base import EncoderSpec, PreparedTexts
from pipeline.exceptions import ModelError

CHARACTERS_PER_TOKEN = 8
"""First guess at a prefix that surely fills the limit; doubled until it does."""
_SPACE = re.compile(r"\s")


class TextTokenizer:
    """The preparing half of every transformer encoder."""

    def __init__(self, spec: EncoderSpec) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one thread a task: Ray runs several
        from tokenizers import Tokenizer  # reads the variable when first used

        self._spec = spec
        try:
            self._tokenizer = Tokenizer.from_file(str(Path(spec.folder) / "tokenizer.json"))
        except Exception as error:
            raise ModelError(spec.model, f"cannot read tokenizer.json: {error}") from error
        # a published file may truncate and pad by itself
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._suffix = self._special_suffix()
        self._prompt_tokens: dict[str, int] = {}

    def prepare(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> PreparedTexts:
        """Tokenize prompt + text; `prompt_tokens` int32 counts those of the prompt, first special included."""
        if prompts is None:
            prompts = [self._spec.prompt] * len(texts)
        encoded = self.token_ids([prompt + text for prompt, text in zip(prompts, texts, strict=True)])
        limit = self._spec.max_seq_length
        keep = limit - len(self._suffix)
        ids = [ids if len(ids) <= limit else ids[:keep] + self._suffix for ids in encoded]
        rows = {
            "n_tokens": pa.array([len(row) for row in ids], pa.int32()),
            "truncated": pa.array([len(row) > limit for row in encoded], pa.bool_()),
            "prompt_tokens": pa.array([self._count_prompt(prompt) for prompt in prompts], pa.int32()),
        }
        flat = np.fromiter((token for row in ids for token in row), np.int32, sum(map(len, ids)))
        return PreparedTexts(rows=rows, token_ids=pa.array(flat))

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, special tokens included: all of them, or more than the limit."""
        if self._spec.lower_case:
            texts = [text.lower() for text in texts]
        size = self._spec.max_seq_length * CHARACTERS_PER_TOKEN
        encoded: list[list[int]] = [[] for _ in texts]
        waiting = list(range(len(texts)))
        while waiting:
            prefixes = [_prefix(texts[index], size) for index in waiting]
            batch = self._tokenizer.encode_batch_fast(prefixes)
            unsure = []
            for index, prefix, encoding in zip(waiting, prefixes, batch, strict=True):
                encoded[index] = encoding.ids
                if len(prefix) < len(texts[index]) and len(encoding.ids) <= self._spec.max_seq_length:
                    unsure.append(index)
            waiting = unsure
            size *= 4
        return encoded

    def _special_suffix(self) -> list[int]:
        sample = self._tokenizer.encode("a")
        tail = []
        for token, special in zip(reversed(sample.ids), reversed(sample.special_tokens_mask), strict=True):
            if not special:
                break
            tail.append(token)
        return tail[::-1]

    def _count_prompt(self, prompt: str) -> int:
        """Count as sentence-transformers does: the prompt alone, its closing special token left out."""
        if not prompt:
            return 0
        if prompt not in self._prompt_tokens:
            self._prompt_tokens[prompt] = len(self.token_ids([prompt])[0]) - len(self._suffix)
        return self._prompt_tokens[prompt]


def _prefix(text: str, size: int) -> str:
    """Return a prefix of at least `size` characters that ends before white space, or the whole text."""
    if len(text) <= size:
        return text
    space = _SPACE.search(text, size)
    while space and text[space.start() - 1].isspace():
        space = _SPACE.search(text, space.end())
    return text if space is None else text[: space.start()]
