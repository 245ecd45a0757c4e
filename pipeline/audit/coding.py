"""What the numbers of a shard's vectors stand for, by the plan and the calibration as they are documented.

Written apart from the code that made them: a mistake there is found here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.fingerprint import sha256
from pipeline.plan import Plan
from pipeline.storage import Store

KEY = "_job/calibration.json"
FORMAT = 1
STEPS = 127

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coding:
    """How one output stores vectors; `scale` and `offset` are float32 [dimension] for int8, else empty.

    `footer` is what every shard's must say of it. `known` is False where the calibration cannot be used, so that
    codes say nothing.
    """

    vectors: str
    dimension: int
    scale: Matrix = field(default_factory=lambda: np.empty(0, np.float32))
    offset: Matrix = field(default_factory=lambda: np.empty(0, np.float32))
    footer: Mapping[str, str] = field(default_factory=dict)
    known: bool = True

    def decode(self, codes: npt.NDArray[np.generic]) -> Matrix:
        """Return what codes stand for, float32 [rows, dimension]; of binary ones signs, scaled to length 1."""
        if self.vectors == "int8":
            return codes.astype(np.float32) * self.scale + self.offset
        if self.vectors == "binary":
            signs = np.unpackbits(codes.astype(np.uint8), axis=1, bitorder="big")
            length = np.float32(self.dimension**-0.5)
            return np.where(signs == 1, length, -length)
        return codes.astype(np.float32)

    def slack(self) -> float:
        """Return by how much the length of what is decoded may differ from that of the vector, at the most."""
        return {"float16": 1e-3, "int8": float(np.linalg.norm(self.scale)) / 2}.get(self.vectors, 0.0)

    def at_ends(self, codes: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
        """Tell which codes may have been cut to the end of a range, so that lengths say nothing, bool like codes."""
        if self.vectors != "int8":
            return np.zeros(codes.shape, np.bool_)
        return np.asarray(np.abs(codes.astype(np.int16)) >= STEPS)

    def differs(
        self, codes: npt.NDArray[np.generic], expected: npt.NDArray[np.float64], tolerance: float
    ) -> npt.NDArray[np.bool_]:
        """Tell which rows are not the codes of expected vectors, bool [rows]; these may be off by `tolerance`."""
        decoded = self.decode(codes)
        if self.vectors == "binary":
            wrong = ((decoded > 0) != (expected > 0)) & (np.abs(expected) > tolerance)
            return np.asarray(wrong.any(axis=1))
        allowed = {"float16": np.abs(expected) / 2048, "int8": self.scale / 2}.get(self.vectors, 0.0)
        wrong = np.abs(decoded - expected) > allowed + tolerance
        if self.vectors == "int8":
            cut = np.abs(expected - self.offset) > np.abs(decoded - self.offset)
            wrong &= ~(self.at_ends(codes) & cut)
        return np.asarray(wrong.any(axis=1))


def stored_numbers(table: pa.Table) -> npt.NDArray[np.generic]:
    """Return the numbers of a shard's vectors as they are stored, [rows, any]; a null vector is all NaN, or 0."""
    chunks = table["embedding"]
    whole = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()  # the latter copies
    kind = whole.type
    nothing = float("nan") if pa.types.is_floating(kind.value_type) else 0
    filled = whole.fill_null([nothing] * kind.list_size) if whole.null_count else whole
    values: npt.NDArray[np.generic] = filled.flatten().to_numpy(zero_copy_only=False).reshape(-1, kind.list_size)
    return values


def audit_coding(store: Store, plan: Plan) -> tuple[Coding, list[str]]:
    """Read the calibration that a plan needs, and say what is wrong with it."""
    plain = Coding(vectors=plan.vectors, dimension=plan.resolved["encoder"]["dimension"])
    if plan.vectors == "float32" or not plan.units:
        return plain, []
    data = store.read(KEY)
    if data is None:
        return replace(plain, known=False), [f"{KEY} is missing; nothing tells what the codes stand for"]
    plain = replace(plain, footer={"calibration": sha256(data)})
    try:
        return _read(data, plan, plain), []
    except (KeyError, TypeError, ValueError) as error:
        return replace(plain, known=False), [f"{KEY}: {type(error).__name__}: {error}"]


def _read(data: bytes, plan: Plan, plain: Coding) -> Coding:
    """Read a calibration.

    Raises:
        KeyError, TypeError, ValueError: it is none of this plan, or its numbers cannot be right.
    """
    found = json.loads(data)
    expected = {"format": FORMAT, "plan_id": plan.plan_id, "vectors": plain.vectors, "dimension": plain.dimension}
    wrong = [f"{name} {found[name]}, expected {value}" for name, value in expected.items() if found[name] != value]
    if wrong:
        raise ValueError(f"it says {', '.join(wrong)}")
    count = plain.dimension if plain.vectors == "int8" else 0
    ranges = {name: np.array(found[name], np.float32) for name in ("scale", "offset")}
    for name, values in ranges.items():
        if values.shape != (count,) or not np.isfinite(values).all() or (name == "scale" and (values <= 0).any()):
            raise ValueError(f"its {name} is not {count} finite numbers" + " above 0" * (name == "scale"))
    said = {name: json.dumps(found[name]) for name in ranges} if count else {}
    return replace(plain, scale=ranges["scale"], offset=ranges["offset"], footer={**plain.footer, **said})
