"""Who competes, with which settings: what the table says about each is written here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContender:
    """An encoder alone. `processes` 0 stands for one a core, `threads` 0 for the engine's default."""

    label: str
    kind: str
    settings: str
    dtype: str = "float32"
    processes: int = 0
    threads: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    peers: bool = False
    graph: str = ""

    @property
    def group(self) -> tuple[str, str, int, int]:
        """Contenders that differ only in what each call is given share their processes."""
        return (self.kind, self.dtype, self.processes, self.threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContender:
    """A whole program from Parquet to Parquet; `script` none is embatch's own command."""

    label: str
    settings: str
    script: str | None = None
    peers: bool = False


OPENVINO_HINTS = {"bfloat16": "bf16", "float32": "f32"}
REFERENCE = "sentence-transformers, defaults"
BEST = "sentence-transformers, best"
OURS = "embatch encoder"
COMMAND = "embatch run"
LOOP = "sentence-transformers loop"


def embatch(dtype: str) -> EngineContender:
    """As a job's actors run it."""
    settings = f"{dtype}, one process of one thread a core, static token budget"
    return EngineContender(label=f"{OURS}, {dtype}", kind="embatch", dtype=dtype, settings=settings)


DEFAULTS = EngineContender(
    label=REFERENCE,
    kind="sentence-transformers",
    processes=1,
    threads=0,
    options={"batch_size": 32},
    settings="SentenceTransformer(folder).encode(texts): float32, sdpa, batch 32, one process, torch's own threads",
)
BF16 = EngineContender(
    label="sentence-transformers, bfloat16",
    kind="sentence-transformers",
    dtype="bfloat16",
    processes=1,
    threads=0,
    options={"batch_size": 32},
    settings="model_kwargs={'dtype': torch.bfloat16}, batch 32, one process, torch's own threads",
)


def best_of(dtypes: list[str]) -> list[EngineContender]:
    """What sentence-transformers' best is chosen from."""
    shapes = [(1, 0, 8), (1, 0, 16), (0, 1, 8), (0, 1, 16)]
    return [
        EngineContender(
            label=BEST,
            kind="sentence-transformers",
            dtype=dtype,
            processes=processes,
            threads=threads,
            options={"batch_size": batch},
            settings=f"{dtype}, sdpa, batch {batch}, "
            + ("one process, torch's own threads" if processes else "one process of one thread a core"),
        )
        for dtype in dtypes
        for processes, threads, batch in shapes
    ]


def openvino(dtype: str) -> EngineContender:
    """OpenVINO on the traced model, pooling inside the graph."""
    return EngineContender(
        label=f"OpenVINO, {dtype}",
        kind="openvino",
        dtype=dtype,
        options={"batch_size": 8},
        settings=f"INFERENCE_PRECISION_HINT {OPENVINO_HINTS[dtype]}, sorted by tokens, batch 8, one process of one "
        "thread a core, NUM_STREAMS 1, pinning off",
        peers=True,
        graph="openvino",
    )


ONNX = EngineContender(
    label="ONNX Runtime, float32",
    kind="onnx",
    options={"batch_size": 8},
    settings="torch.onnx.export(dynamo=True), ORT_ENABLE_ALL, sorted by tokens, batch 8, one process of one thread a "
    "core",
    peers=True,
    graph="onnx",
)
COMMANDS = (
    CommandContender(
        label=COMMAND,
        settings="embatch run --input IN --output OUT --model MODEL --set input.id=id --json: read, tokenize, encode, "
        "commit, audit; rate after start-up as its report says",
    ),
    CommandContender(
        label=LOOP,
        script="loop",
        settings="scripts/loop.py: pyarrow, encode(texts) with its defaults, one Parquet file; rate inside encode()",
    ),
    CommandContender(
        label="Ray Data script",
        script="ray_script",
        settings="scripts/ray_script.py: read_parquet, repartition(4 an actor), map_batches(SentenceTransformer actor, "
        "batch_size=128, concurrency=cores), write_parquet; local Ray of twice the cores; rate from the first batch to "
        "the end",
    ),
    CommandContender(
        label="Daft embed_text",
        script="daft_script",
        peers=True,
        settings="scripts/daft_script.py: embed_text(provider='transformers'), its batches of 64, native runner; rate "
        "of the whole query, model load included",
    ),
)
