"""The texts that are encoded: passages as they are, lengths from 1 to 512, and all at the model's limit.

Deterministic: a seed, the passages and the model's tokenizer decide every text.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from benchmarks.speed.models import MINILM, Counter
from tokenizers import Tokenizer

from pipeline.encoders.model_files import locate

MIXES = ("mixed", "short", "long")
SEED = 7
LONGEST, MEDIAN, SIGMA = 512, 90, 1.0
STREAM_PASSAGES = 4000
BLOCK = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model on one mix: what every contender is given, and what it costs."""

    model: str
    mix: str
    path: Path
    texts: int
    tokens: int
    flops: int


def passages(data: Path) -> list[str]:
    """Read the `text` of every Parquet and JSON Lines file below a folder, shuffled."""
    found: list[str] = []
    for path in sorted(data.rglob("*")):
        if path.suffix == ".parquet":
            # not as part of a dataset: the folder's name may be a partition
            found += pq.ParquetFile(path).read(columns=["text"])["text"].to_pylist()
        elif path.suffix == ".jsonl" or path.name.endswith(".jsonl.gz"):
            with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
                found += [json.loads(line)["text"] for line in file]
    random.Random(SEED).shuffle(found)
    return found


class Mixes:
    """Endless texts of each mix."""

    def __init__(self, data: Path) -> None:
        self._passages = passages(data)
        tokenizer = Tokenizer.from_file(str(locate(MINILM, None).path / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._stream = " ".join(self._passages[:STREAM_PASSAGES])
        self._offsets = tokenizer.encode(self._stream, add_special_tokens=False).offsets

    def cell(self, model: str, mix: str, counter: Counter, tokens: int, folder: Path) -> Cell:
        """Write texts of about so many tokens in all, as a JSON list."""
        source = self._texts(mix, counter.limit)
        texts, lengths = [], np.empty(0, np.int64)
        while lengths.sum() < tokens:
            block = list(islice(source, BLOCK))
            texts += block
            lengths = np.concatenate([lengths, counter.lengths(block)])
        path = folder / f"{model}-{mix}-{len(texts)}.json"
        path.write_text(json.dumps(texts))
        total = int(lengths.sum())
        return Cell(model=model, mix=mix, path=path, texts=len(texts), tokens=total, flops=counter.flops(lengths))

    def _texts(self, mix: str, limit: int) -> Iterator[str]:
        if mix == "short":
            return (self._passages[number % len(self._passages)] for number in count())
        draw = random.Random(SEED)
        if mix == "long":
            # a quarter more, so that it fills the limit in any tokenizer
            return self._cut(limit * 5 // 4 for _ in count())
        wanted = (round(MEDIAN * draw.lognormvariate(0, SIGMA)) for _ in count())
        return self._cut(min(max(size, 1), LONGEST - 2) for size in wanted)

    def _cut(self, sizes: Iterator[int]) -> Iterator[str]:
        """Cut pieces of so many tokens from the passages joined end to end, round and round."""
        start = 0
        for size in sizes:
            if start + size > len(self._offsets):
                start = 0
            first, last = self._offsets[start], self._offsets[start + size - 1]
            yield self._stream[first[0] : last[1]]
            start += size
