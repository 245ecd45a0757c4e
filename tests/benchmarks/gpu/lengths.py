"""The texts of a cell: all of 128 tokens, all of 512, or log-normal lengths from 1 to 512, as `benchmarks.speed` has.

Tokens are the model's own, special ones and prompt included. Pieces of the demo corpus end at ends of words, so that
they have the same tokens alone, and are filled up with a word of one token. Deterministic.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import exp
from pathlib import Path
from statistics import NormalDist

import numpy as np
from benchmarks.speed.mixes import LONGEST, MEDIAN, SEED, SIGMA, STREAM_PASSAGES, passages
from tokenizers import Tokenizer

from pipeline.encoders.base import PreparedTexts, Preparer

MIXES = ("128", "512", "mixed")
LEAST_TEXTS = 32
FILLER = " a"
STEP = 7
"""Words by which each round through the corpus starts later, so that texts do not repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Texts, and the same texts tokenized: what every contender is given."""

    texts: list[str]
    prepared: PreparedTexts

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, int64 [n]."""
        return self.prepared.n_tokens.astype(np.int64)

    def take(self, rows: list[int]) -> Work:
        """Return some texts, by ascending row."""
        keep = np.zeros(len(self.texts), bool)
        keep[rows] = True
        return Work(texts=[self.texts[row] for row in rows], prepared=self.prepared.select(keep))


class Lengths:
    """Texts of given lengths in one model's tokens."""

    def __init__(self, folder: Path, preparer: Preparer, limit: int, data: Path) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._preparer, self._limit = preparer, limit
        self._words = _Words(tokenizer, " ".join(passages(data)[:STREAM_PASSAGES]))
        # what comes with every text: special tokens, the prompt
        self._around = int(preparer.prepare([FILLER.strip()]).n_tokens[0]) - 1

    def work(self, mix: str, tokens: int) -> Work:
        """Return about so many tokens of texts, in random order."""
        mean = np.mean(self._sizes(mix, 1000)) + self._around
        sizes = self._sizes(mix, max(round(tokens / mean), LEAST_TEXTS))
        texts = [self._words.piece(size) for size in sizes]
        random.Random(SEED).shuffle(texts)
        return Work(texts=texts, prepared=self._preparer.prepare(texts))

    def _sizes(self, mix: str, texts: int) -> list[int]:
        """Tokens of each text without what comes with it, evenly over the mix's distribution."""
        most = min(LONGEST, self._limit) - self._around
        if mix != "mixed":
            return [min(int(mix) - self._around, most)] * texts
        drawn = NormalDist(0, SIGMA)
        places = ((number + 0.5) / texts for number in range(texts))
        return [min(max(round(MEDIAN * exp(drawn.inv_cdf(place))), 1), most) for place in places]


class _Words:
    """A stream of words, round and round."""

    def __init__(self, tokenizer: Tokenizer, stream: str) -> None:
        encoded = tokenizer.encode(stream, add_special_tokens=False)
        words, offsets = np.array(encoded.word_ids), np.array(encoded.offsets)
        firsts = np.concatenate([[0], np.flatnonzero(np.diff(words)) + 1])
        self._ends = np.append(firsts[1:], len(words))
        self._stream = stream
        self._from, self._to = offsets[firsts, 0], offsets[self._ends - 1, 1]
        self._at, self._rounds = 0, 0

    def piece(self, size: int) -> str:
        """Return the next words, as many as have no more tokens than `size`, filled up to it."""
        if self._at + LONGEST >= len(self._ends):
            self._rounds += 1
            self._at = self._rounds * STEP % (len(self._ends) // 2)
        first = self._at
        before = int(self._ends[first - 1]) if first else 0
        last = int(np.searchsorted(self._ends, before + size, side="right"))
        self._at = max(last, first + 1)
        if last == first:
            return (FILLER * size).strip()
        held = int(self._ends[last - 1]) - before
        return self._stream[self._from[first] : self._to[last - 1]].strip() + FILLER * (size - held)
