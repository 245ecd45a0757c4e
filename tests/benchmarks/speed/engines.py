"""Encoders alone, each behind the same small face: built once, then `encode(texts)` with tokenization inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.speed.contenders import OPENVINO_HINTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What an engine is built from; `graph` is the converted model of those that need one, `threads` 0 the default."""

    name: str
    folder: str
    prompt: str | None
    dtype: str
    threads: int
    graph: str = ""


class Embatch:
    """As an actor of a job runs it: the preparer's half, then the encoder's."""

    def __init__(self, setup: Setup) -> None:
        from pipeline.config import EncoderConfig
        from pipeline.encoders import precision, registry

        spec = registry.resolve(
            EncoderConfig(model=setup.name, prompt=setup.prompt, dtype=setup.dtype), precision.detect("cpu")
        )
        self._preparer = registry.build_preparer(spec)
        self._encoder = registry.build_encoder(spec, "cpu", setup.threads)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return self._encoder.encode(self._preparer.prepare(texts))


class SentenceTransformers:
    """Its own `encode`, which sorts by length itself; `threads` 0 leaves torch's choice."""

    def __init__(self, setup: Setup) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        if setup.threads:
            torch.set_num_threads(setup.threads)
        kwargs = {} if setup.dtype == "float32" else {"dtype": getattr(torch, setup.dtype)}
        self._model = SentenceTransformer(setup.folder, device="cpu", model_kwargs=kwargs)
        self._prompt = setup.prompt

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        return self._model.encode(list(texts), prompt=self._prompt, batch_size=batch_size, show_progress_bar=False)


class _Graph:
    """A converted graph fed with texts sorted by tokens, in small padded batches."""

    def __init__(self, folder: Path, prompt: str | None) -> None:
        from tokenizers import Tokenizer

        config = json.loads((folder / "config.json").read_text())
        limit = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(limit)
        self._prompt, self._pad = prompt or "", config.get("pad_token_id") or 0
        self._skipped = len(self._tokenizer.encode(self._prompt).ids) - 1 if prompt else 0

    def encode(self, texts: Sequence[str], batch_size: int = 8) -> np.ndarray:
        ids = [one.ids for one in self._tokenizer.encode_batch([self._prompt + text for text in texts])]
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        vectors: list[Any] = [None] * len(ids)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            for row, vector in zip(rows, self._run(*self._padded([ids[row] for row in rows])), strict=True):
                vectors[row] = vector
        return np.stack(vectors)

    def _padded(self, batch: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape = (len(batch), max(map(len, batch)))
        tokens, inside = np.full(shape, self._pad, np.int64), np.zeros(shape, np.int64)
        for row, ids in enumerate(batch):
            tokens[row, : len(ids)], inside[row, : len(ids)] = ids, 1
        pooled = inside.copy()
        pooled[:, : self._skipped] = 0
        return tokens, inside, pooled

    def _run(self, tokens: np.ndarray, inside: np.ndarray, pooled: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class OpenVino(_Graph):
    """OpenVINO's CPU plug-in with its precision hint; not pinned, as each process would take the same core."""

    def __init__(self, setup: Setup) -> None:
        import openvino

        super().__init__(Path(setup.folder), setup.prompt)
        hint = OPENVINO_HINTS[setup.dtype]
        settings = {"INFERENCE_NUM_THREADS": setup.threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
        compiled = openvino.Core().compile_model(setup.graph, "CPU", {**settings, "INFERENCE_PRECISION_HINT": hint})
        self._request = compiled.create_infer_request()

    def _run(self, tokens: np.ndarray, inside: np.ndarray, pooled: np.ndarray) -> np.ndarray:
        return self._request.infer([tokens, inside, pooled], share_inputs=True)[0]


class OnnxRuntime(_Graph):
    """ONNX Runtime's CPU provider in float32, with all of its graph optimisations."""

    def __init__(self, setup: Setup) -> None:
        import onnxruntime

        super().__init__(Path(setup.folder), setup.prompt)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = setup.threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._session = onnxruntime.InferenceSession(setup.graph, options, providers=["CPUExecutionProvider"])

    def _run(self, tokens: np.ndarray, inside: np.ndarray, pooled: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": tokens, "attention_mask": inside, "pooled": pooled}
        return self._session.run(None, inputs)[0]


ENGINES = {
    "embatch": Embatch,
    "sentence-transformers": SentenceTransformers,
    "openvino": OpenVino,
    "onnx": OnnxRuntime,
}
