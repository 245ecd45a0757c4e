"""The models that are measured: the true MiniLM, and architectures at full size with seeded random weights.

Speed does not depend on the values of weights. Vocabularies are the small ones of the tests' tokenizers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import EncoderConfig
from pipeline.encoders import precision, registry
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.files.locating import locate

MINILM = "packaged:all-MiniLM-L6-v2"
INSTRUCTION = "Represent the documentation paragraph for retrieval: "
_BASE = {"width": 768, "inner": 3072, "heads": 12, "layers": 12}
_MPNET: tuple[str, str, dict[str, int]] = ("mpnet", "word_piece_mpnet", {"layers": 12})
_TINY = {"width": 64, "inner": 256, "heads": 2}
_LARGE = {"width": 1024, "inner": 4096, "heads": 16, "layers": 24}
ARCHITECTURES: dict[str, tuple[str, str, dict[str, int]]] = {
    "gte-small": ("bert", "word_piece", {"layers": 12}),
    "gte-base": ("bert", "word_piece", _BASE),
    "gte-large": ("bert", "word_piece", _LARGE),
    "mpnet": _MPNET,
    "mpnet-base": _MPNET,
    "instructor-base": ("t5", "unigram_t5", _BASE),
    "instructor-large": ("t5", "unigram_t5", _LARGE),
    "tiny": ("bert", "word_piece", _TINY),
    "tiny-instructor": ("t5", "unigram_t5", _TINY),
}
"""Builder and tokenizer of tests/encoders/tiny_models.py, and sizes; the tiny ones are for tests."""
NAMES = ("minilm", "gte-small", "gte-base", "mpnet", "instructor-base")
"""Those of `make bench`."""
VECTOR_WIDTH = 768
"""What the Dense of every INSTRUCTOR makes of its width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model on disk; `name` is what embatch is asked for, `folder` what its peers load."""

    key: str
    name: str
    folder: Path
    prompt: str | None


def find(key: str, work: Path) -> Model:
    """Return a model that is installed, or that `write` has put below `work`."""
    if key == "minilm":
        return Model(key=key, name=MINILM, folder=locate(MINILM, None).path, prompt=None)
    folder = work / key
    return Model(key=key, name=str(folder), folder=folder, prompt=INSTRUCTION if "instructor" in key else None)


class Counter:
    """What texts cost in a model: tokens as its limit leaves them, and FLOPs without any padding."""

    def __init__(self, model: Model, spec: EncoderSpec | None = None) -> None:
        if spec is None:
            config = EncoderConfig(model=model.name, prompt=model.prompt, dtype="float32")
            spec = registry.resolve(config, precision.Device(kind="cpu", bf16=False))
        sizes = json.loads((model.folder / "config.json").read_text())
        inner = sizes["d_kv"] * sizes["num_heads"] if "d_kv" in sizes else sizes["hidden_size"]
        self.limit = spec.max_seq_length
        self.flops_per_token = spec.flops_per_token
        self._scores = 4 * inner * (sizes.get("num_hidden_layers") or sizes["num_layers"])
        self._preparer = registry.build_preparer(spec)

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """Tokens of each text, int64 [n]."""
        return self._preparer.prepare(texts).n_tokens.astype(np.int64)

    def flops(self, lengths: np.ndarray) -> int:
        """Sum 2 L (4 d inner + 2 d ff) a token and the attention's 4 S inner L a token of a text of S tokens."""
        return int(lengths.sum()) * self.flops_per_token + self._scores * int((lengths**2).sum())


def write(key: str, folder: Path) -> None:
    """Write one architecture with random weights as its authors publish it."""
    from encoders import tiny_models  # torch and transformers, only in the process that writes

    builder, tokenizer, sizes = ARCHITECTURES[key]
    tiny_models.write_model(folder, lambda vocabulary: getattr(tiny_models, builder)(vocabulary, **sizes), tokenizer)
    width = sizes.get("width", 384 if builder == "bert" else 768)
    pooling: dict[str, Any] = {"embedding_dimension": width, "pooling_mode": ["mean"]}
    heads: list[tuple[str, dict[str, Any]]] = [("Pooling", pooling), ("Normalize", {})]
    if builder == "t5":
        pooling["include_prompt"] = False
        identity = "torch.nn.modules.linear.Identity"
        dense = {"in_features": width, "out_features": VECTOR_WIDTH, "bias": False, "activation_function": identity}
        heads.insert(1, ("Dense", dense))
    tiny_models.write_chain(folder, heads)


if __name__ == "__main__":
    for named in sys.argv[2:]:
        write(named, Path(sys.argv[1]) / named)
