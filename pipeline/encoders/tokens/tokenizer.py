"""Texts to token ids with the model's own fast tokenizer; exact truncation, also of very long texts.

A text is truncated to exactly what tokenizing the whole of it and cutting would give, but only a
prefix is tokenized where one is known to have the text's first tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.encoders.base import EncoderSpec, PreparedTexts
from pipeline.encoders.tokens import brackets
from pipeline.encoders.tokens import prompts as prompting

CHARACTERS_PER_TOKEN = 6
"""First guess at a prefix that surely fills the limit; raised until it does."""
FEW_CHARACTERS_PER_TOKEN = 4
"""Longer texts probably exceed the limit: offsets at once cost less than tokenizing them a second time for these."""
CHUNK_CHARACTERS = 1 << 20
"""Tokenized at a time: an encoding takes some 100 bytes a token, of which 4 are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens:
    """A chunk of texts: `ids` int32 end to end, and one value a text."""

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    lost: npt.NDArray[np.int32]


class TextTokenizer:
    """The preparing half of every transformer encoder."""

    def __init__(self, spec: EncoderSpec) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one thread a task: Ray runs several
        from pipeline.encoders.tokens.cutting import TextCutter  # both import tokenizers, which reads the variable
        from pipeline.encoders.tokens.tokenizer_files import load_tokenizer

        self._spec = spec
        self._tokenizer = load_tokenizer(spec)
        self._cutter = TextCutter(self._tokenizer)
        self._suffix = self._special_suffix()
        self._around: tuple[int, ...] = ()
        if spec.brackets is not None:
            self._around = brackets.tokens(spec.brackets, self._tokenizer, spec.model)
        self._limit = spec.max_seq_length - len(self._around)

    @property
    def room(self) -> int:
        """Tokens a text may have besides those that end every text, and brackets."""
        return self._limit - len(self._suffix)

    def prepare(self, texts: Sequence[str], prompts: Sequence[str] | None = None) -> PreparedTexts:
        """Tokenize prompt + text.

        `prompt_tokens` int32 counts the leading tokens that pooling leaves out; `no_room` bool is true
        where the prompt alone fills the limit.
        """
        if prompts is None:
            prompts = [self._spec.prompt] * len(texts)
        if any(prompts):
            prompting.refuse_unknown(self._spec.prompt_pooling)
            brackets.refuse_prompt(self._spec.brackets)
        pooling = self._spec.prompt_pooling
        full = [prompting.join(prompt, text, pooling) for prompt, text in zip(prompts, texts, strict=True)]
        parts = [self._tokenize(full[chunk]) for chunk in _chunks(full, self._longest)]
        counts = self._count_prompts(prompts)
        left_out = {prompt: prompting.left_out(count, pooling) for prompt, count in counts.items()}
        filling = {prompt: bool(prompt) and count >= self.room for prompt, count in counts.items()}
        rows = {
            "n_tokens": pa.array(np.concatenate([part.lengths for part in parts])),
            "truncated": pa.array(np.concatenate([part.truncated for part in parts])),
            "chars": pa.array(list(map(len, full)), pa.int32()),
            "chars_lost": pa.array(np.concatenate([part.lost for part in parts])),
            "prompt_tokens": pa.array([left_out[prompt] for prompt in prompts], pa.int32()),
            "no_room": pa.array([filling[prompt] for prompt in prompts], pa.bool_()),
        }
        return PreparedTexts(rows=rows, token_ids=pa.array(np.concatenate([part.ids for part in parts])))

    @property
    def _longest(self) -> int:
        """Characters of a text that are tokenized at first."""
        return self._spec.max_seq_length * CHARACTERS_PER_TOKEN

    def _tokenize(self, texts: Sequence[str]) -> _Tokens:
        """Tokenize and truncate; the encodings, many times the size of their ids, go before the next chunk's."""
        limit, keep = self._limit, self.room
        encoded = self._encode(texts)
        ids = [encoding.ids for encoding in encoded]
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        truncated, lost = lengths > limit, np.zeros_like(lengths)
        for row in np.flatnonzero(truncated).tolist():
            ids[row] = ids[row][:keep] + self._suffix
            kept = encoded[row].token_to_chars(keep - 1)  # None where only a start token is kept
            lost[row] = len(texts[row]) - (kept[1] if kept else 0)
        if self._around:
            first, last = self._around
            ids = [[first, *tokens, last] for tokens in ids]
        lengths = np.minimum(lengths, limit) + np.int32(len(self._around))
        flat = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum()))
        return _Tokens(ids=flat, lengths=lengths, truncated=truncated, lost=lost)

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        """Return each text's encoding: whole, or of a prefix with more tokens than the limit; then with offsets."""
        limit, size = self._limit, self._longest
        encoded: list[Any] = [None] * len(texts)
        prefixes = list(texts)
        waiting: list[int] = list(range(len(texts)))
        while waiting:
            for index in waiting:
                prefixes[index] = self._cutter.prefix(texts[index], size)
            short = [index for index in waiting if len(prefixes[index]) <= limit * FEW_CHARACTERS_PER_TOKEN]
            long = [index for index in waiting if len(prefixes[index]) > limit * FEW_CHARACTERS_PER_TOKEN]
            self._encode_into(encoded, prefixes, short, offsets=False)
            self._encode_into(encoded, prefixes, [row for row in short if len(encoded[row]) > limit], offsets=True)
            self._encode_into(encoded, prefixes, long, offsets=True)
            waiting = [row for row in long if len(encoded[row]) <= limit and len(prefixes[row]) < len(texts[row])]
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


def _chunks(texts: Sequence[str], longest: int) -> Iterator[slice]:
    """Yield runs of texts, of which up to `longest` characters each are tokenized; the last run may be empty."""
    start = size = 0
    for index, text in enumerate(texts):
        size += min(len(text), longest)
        if size >= CHUNK_CHARACTERS:
            yield slice(start, index + 1)
            start, size = index + 1, 0
    yield slice(start, len(texts))
