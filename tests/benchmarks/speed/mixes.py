"""The texts that are encoded: passages as they are, lengths from 1 to 512, and all at the model's limit.

Deterministic: a seed, the passages and the model's tokenizer decide every text. A cell has few texts and stands for
millions, which every contender would sort by length: so lengths come in groups of 32 alike, evenly over their
distribution, in random order. Drawn one by one, batches of 32 would be mostly padding, which no large corpus shows.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from math import exp
from pathlib import Path
from statistics import NormalDist

import pyarrow.parquet as pq
from benchmarks.speed.models import MINILM, Counter
from tokenizers import Tokenizer

from pipeline.encoders.files.locating import locate

MIXES = ("mixed", "short", "long")
SEED = 7
LONGEST, MEDIAN, SIGMA = 512, 90, 1.0
STREAM_PASSAGES = 4000
GROUP, LEAST_GROUPS = 32, 3
LONG_GROUP = 4


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
    """Texts of each mix."""

    def __init__(self, data: Path) -> None:
        found = passages(data)
        self._by_length = sorted(found, key=len)
        tokenizer = Tokenizer.from_file(str(locate(MINILM, None).path / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._stream = " ".join(found[:STREAM_PASSAGES])
        self._offsets = tokenizer.encode(self._stream, add_special_tokens=False).offsets

    def cell(
        self, model: str, mix: str, counter: Counter, tokens: int, folder: Path, least: int = LEAST_GROUPS
    ) -> Cell:
        """Write texts of about so many tokens in all, and of no fewer groups than `least`, as a JSON list."""
        groups = 1 if mix == "long" else least
        texts = self._texts(mix, counter.limit, groups)
        while (lengths := counter.lengths(texts)).sum() < tokens:
            groups = max(groups + 1, int(groups * min(tokens / lengths.sum(), 4)))
            texts = self._texts(mix, counter.limit, groups)
        random.Random(SEED).shuffle(texts)
        path = folder / f"{model}-{mix}-{len(texts)}.json"
        path.write_text(json.dumps(texts))
        total = int(lengths.sum())
        return Cell(model=model, mix=mix, path=path, texts=len(texts), tokens=total, flops=counter.flops(lengths))

    def _texts(self, mix: str, limit: int, groups: int) -> list[str]:
        if mix == "long":
            # a quarter more, so that it fills the limit in any tokenizer
            return list(self._cut(repeat(limit * 5 // 4, groups * LONG_GROUP)))
        places = [(number + 0.5) / groups for number in range(groups)]
        if mix == "short":
            starts = [int(place * max(len(self._by_length) - GROUP, 0)) for place in places]
            return [text for start in starts for text in self._by_length[start : start + GROUP]]
        drawn = NormalDist(0, SIGMA)
        sizes = [round(MEDIAN * exp(drawn.inv_cdf(place))) for place in places]
        return list(self._cut(min(max(size, 1), LONGEST - 2) for size in sizes for _ in range(GROUP)))

    def _cut(self, sizes: Iterable[int]) -> Iterator[str]:
        """Cut pieces of so many tokens from the passages joined end to end, round and round."""
        start = 0
        for size in sizes:
            if start + size > len(self._offsets):
                start = 0
            first, last = self._offsets[start], self._offsets[start + size - 1]
            yield self._stream[first[0] : last[1]]
            start += size
