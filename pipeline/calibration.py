"""How the vectors of a job become compact codes: one rule for all its rows, made from a sample of them.

A code depends on its vector and the calibration alone, never on the batch, the unit or the run that wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.fingerprint import canonical_json, sha256
from pipeline.recall import recall_at_10

FORMAT = 1
UNCODED = "float32"
"""What needs no calibration."""
STEPS = 127
"""int8 codes reach from -127 to 127, evenly around the middle of a number's range; -128 is never written."""
SMALLEST = 1e-20
"""Half a range at the least, so that a step is a number above 0."""
LARGEST = float(np.finfo(np.float16).max)

Vectors = npt.NDArray[np.float32]
Codes = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One job's rule; `scale` and `offset` are of int8, one a number of the vector, else empty.

    `recall_at_10` is how many of the ten nearest neighbours in the sample by float vectors are among the ten nearest
    by codes, on average; None where the sample has no two rows. `sample_tokens` is what encoding the sample took, None
    where embatch did not count it yet.
    """

    plan_id: str
    vectors: str
    dimension: int
    sample_rows: int
    sample_units: int
    recall_at_10: float | None = None
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    sample_tokens: int | None = None

    def encode(self, vectors: Vectors) -> tuple[Codes, npt.NDArray[np.int64]]:
        """Turn finite vectors, [n, dimension], into codes, and count what was cut to the ends of its range.

        Returns:
            float16 or int8 [n, dimension], or uint8 [n, dimension / 8] with the first number's sign in the highest
            bit, as `numpy.packbits` has it; and int64 [n].
        """
        if self.vectors == "binary":
            return np.packbits(vectors > 0, axis=1), np.zeros(len(vectors), np.int64)
        if self.vectors == "float16":
            outside = np.abs(vectors) > LARGEST
            return np.clip(vectors, -LARGEST, LARGEST).astype(np.float16), outside.sum(axis=1)
        scale, offset = self._ranges
        steps = np.rint((vectors - offset) / scale)
        outside = np.abs(steps) > STEPS
        return np.clip(steps, -STEPS, STEPS).astype(np.int8), outside.sum(axis=1)

    def decode(self, codes: Codes) -> Vectors:
        """Turn codes back into vectors, float32 [n, dimension]; of binary ones into signs, scaled to length 1."""
        if self.vectors == "binary":
            bits = np.unpackbits(codes.astype(np.uint8, copy=False), axis=1)
            signs: Vectors = (2 * bits.astype(np.float32) - 1) / np.sqrt(np.float32(self.dimension))
            return signs
        numbers = codes.astype(np.float32)
        if self.vectors != "int8":
            return numbers
        scale, offset = self._ranges
        return numbers * scale + offset

    @property
    def _ranges(self) -> tuple[Vectors, Vectors]:
        return np.array(self.scale, np.float32), np.array(self.offset, np.float32)

    def to_json(self) -> bytes:
        """Serialize; equal calibrations give equal bytes."""
        values = asdict(self)
        if self.sample_tokens is None:
            del values["sample_tokens"]
        return canonical_json({"format": FORMAT, **values})

    @property
    def digest(self) -> str:
        """The sha256 of its bytes, which each shard made with it carries."""
        return sha256(self.to_json())

    def description(self) -> dict[str, str]:
        """Return what a shard's footer says of it, so that a reader needs nothing else."""
        ranges = {"scale": self.scale, "offset": self.offset} if self.scale else {}
        told = {"vectors": self.vectors, "calibration": self.digest}
        return told | {name: json.dumps(values) for name, values in ranges.items()}


def calibrate(
    plan_id: str, vectors: str, dimension: int, sample: Sequence[Vectors], tokens: int | None = None
) -> Calibration:
    """Make a job's rule from the finite vectors of a sample, [rows, dimension] a unit, of so many tokens."""
    rows = np.concatenate([np.empty((0, dimension), np.float32), *sample])
    scale, offset = _fitted(rows) if vectors == "int8" else ((), ())
    rule = Calibration(
        plan_id=plan_id,
        vectors=vectors,
        dimension=dimension,
        sample_rows=len(rows),
        sample_units=len(sample),
        sample_tokens=tokens,
        scale=scale,
        offset=offset,
    )
    floats = _unit_length(rows)
    if vectors == "binary":
        queries = documents = np.where(rows > 0, np.float32(1), np.float32(-1))  # their products count equal signs
    else:
        queries, documents = floats, _unit_length(rule.decode(rule.encode(rows)[0]))
    found = recall_at_10(floats, queries, documents)
    return replace(rule, recall_at_10=None if found is None else round(found, 4))


def _fitted(rows: Vectors) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return scale and offset: the ends of a number's range in the sample become the codes -127 and 127.

    Of rows like those of a sample of n, a share of 2 / (n + 1) lies outside at each number and is cut to its end. A
    range of nearly nothing, as of a sample of one row, is widened to a step of the widest.
    """
    if not len(rows):
        rows = np.stack([np.full(rows.shape[1], end, np.float32) for end in (-1, 1)])
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    half = np.maximum((high - low) / 2, max(np.abs(rows).max() / STEPS, SMALLEST))
    return _decimal(half / STEPS), _decimal((low + high) / 2)


def _decimal(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Round to float32 in its shortest decimal form, which footers repeat in every shard."""
    return tuple(float(str(value)) for value in values.astype(np.float32))


def _unit_length(rows: Vectors) -> Vectors:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, np.where(lengths > 0, lengths, 1), dtype=np.float32)


def from_json(data: bytes) -> Calibration:
    """Read back what `to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: these bytes are no calibration of this format.
    """
    values = json.loads(data)
    if values.pop("format") != FORMAT:
        msg = f"not of format {FORMAT}"
        raise ValueError(msg)
    found = Calibration(**{**values, "scale": tuple(values["scale"]), "offset": tuple(values["offset"])})
    if found.to_json() != data:
        raise ValueError("altered")
    return found


def from_footer(footer: Mapping[str, str]) -> Calibration:
    """Read from a shard's metadata, names without their prefix, what decoding its vectors takes."""
    return Calibration(
        plan_id=footer["plan_id"],
        vectors=footer.get("vectors", UNCODED),
        dimension=int(footer["dimension"]),
        sample_rows=0,
        sample_units=0,
        scale=tuple(json.loads(footer.get("scale", "[]"))),
        offset=tuple(json.loads(footer.get("offset", "[]"))),
    )
