"""What the preparing half adds to the bare tokenizer, in CPU time of one thread.

Run as `PYTHONPATH=tests python tests/benchmarks/tokenizing.py`.

Tokenizers: the true WordPiece vocabulary of all-MiniLM-L6-v2, and byte-level BPE and Unigram as the tests train
them. Texts: the demo corpus' paragraphs, and runs of them some times over the limit. Medians, taken in turn.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from encoders import tiny_models
from encoders.tokens.test_tokenizer import MODEL_TYPES, spec_for

from pipeline.config import EncoderConfig
from pipeline.encoders import precision, registry
from pipeline.encoders.tokens.tokenizer import TextTokenizer

LIMIT = 512
REPEATS = 5
TRAINED = ("byte_level", "unigram_t5")


def tokenizers(folder: Path) -> dict[str, TextTokenizer]:
    """Return the preparing halves by name, all with the same limit."""
    config = EncoderConfig(model="packaged:all-MiniLM-L6-v2", max_seq_length=LIMIT)
    spec = registry.resolve(config, precision.Device(kind="cpu", bf16=False))
    found = {"word_piece": TextTokenizer(spec)}
    for name in TRAINED:
        path = folder / name
        path.mkdir()
        tiny_models.write_tokenizer(name, path)
        (path / "config.json").write_text(json.dumps({"model_type": MODEL_TYPES[name]}))
        found[name] = TextTokenizer(spec_for(path, LIMIT))
    return found


def mixes() -> dict[str, list[str]]:
    """Return texts by name: paragraphs as they are, and runs of about `times` the limit."""
    paragraphs = tiny_models.corpus()
    found = {"paragraphs": paragraphs}
    for times, count in ((1, 100), (2, 100), (10, 20), (100, 4)):
        size = times * LIMIT * 5
        repeated = " ".join(paragraphs * 4)
        found[f"{times} x limit"] = [repeated[start : start + size] for start in range(0, count * 1000, 1000)]
    return found


def compare(bare: Callable[[], object], ours: Callable[[], object]) -> tuple[float, float]:
    """Return the median CPU seconds of two calls, taken in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for taken, call in zip(seconds, (bare, ours), strict=True):
            started = time.process_time()
            call()
            taken.append(time.process_time() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def main() -> None:
    """Print one table; `kept` counts tokens after truncation, for both."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    print("tokenizer   texts        tokens kept  bare tok/s  prepare tok/s  prepare : bare")
    with tempfile.TemporaryDirectory() as folder:
        for name, ours in tokenizers(Path(folder)).items():
            for mix, texts in mixes().items():
                kept = int(ours.prepare(texts).n_tokens.sum())
                bare, prepare = compare(
                    lambda texts=texts, ours=ours: ours._tokenizer.encode_batch_fast(texts),
                    lambda texts=texts, ours=ours: ours.prepare(texts),
                )
                rates = f"{kept / bare:>10,.0f}  {kept / prepare:>13,.0f}"
                print(f"{name:<11} {mix:<12} {kept:>11,}  {rates}  {bare / prepare:>14.2f}")


if __name__ == "__main__":
    main()
