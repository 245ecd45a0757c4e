"""A unit's rows as one row of the dataset: each column is a list that holds the whole unit.

Ray never splits a row, so whatever it does with blocks, retries or lineage, units stay whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa

from pipeline.corpus import Documents
from pipeline.encoders.base import PreparedTexts
from pipeline.exceptions import PipelineError, to_json
from pipeline.records import DeadLetter, Unit

_DEAD = pa.struct(
    [
        pa.field("slice_index", pa.int32()),
        pa.field("row", pa.int64()),
        pa.field("code", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
SCRIPT = "script"
"""Among what was prepared of each row: the place of its text's script in `corpus.scripts.SCRIPTS`."""
_PREPARED = "prepared."
_KEEP = "keep."


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One unit, ready to encode; row-aligned columns, then dead letters."""

    slice_index: pa.Array
    source_row: pa.Array
    ids: pa.Array
    keep: dict[str, pa.Array]
    prepared: PreparedTexts
    dead: pa.StructArray
    seconds: dict[str, float]


def to_row(
    unit: Unit, documents: Documents, keep: dict[str, pa.Array], prepared: PreparedTexts, seconds: dict[str, float]
) -> pa.Table:
    """Pack a unit into a table of one row, with the seconds each stage took so far."""
    columns = {
        "slice_index": pa.array(documents.slice_index, pa.int32()),
        "source_row": pa.array(documents.source_row, pa.int64()),
        "id": pa.array(documents.ids, pa.large_string()),
        "dead": pa.array(map(_dead_values, documents.dead), _DEAD),
        "token_ids": prepared.token_ids,
        **{_PREPARED + name: column for name, column in prepared.rows.items()},
        **{_KEEP + name: column for name, column in keep.items()},
    }
    return pa.table(
        {
            "unit": pa.array([unit.to_json()]),
            "seconds": pa.array([json.dumps(seconds)]),
            "error": pa.array([None], pa.string()),
            **{name: _as_one_list(column) for name, column in columns.items()},
        }
    )


def error_row(unit: Unit, error: PipelineError) -> pa.Table:
    """Say that a unit could not be read: the error travels as data and ends the run at the driver."""
    return pa.table({"unit": [unit.to_json()], "seconds": ["{}"], "error": [to_json(error)]})


def from_row(row: pa.Table) -> Payload:
    """Unpack a table of one row without copying."""

    def values(name: str) -> pa.Array:
        # flatten() honours the row's offset where several rows share a block; .values does not
        return row.column(name).chunk(0).flatten()

    def group(prefix: str) -> dict[str, pa.Array]:
        names = [name for name in row.column_names if name.startswith(prefix)]
        return {name.removeprefix(prefix): values(name) for name in names}

    return Payload(
        slice_index=values("slice_index"),
        source_row=values("source_row"),
        ids=values("id"),
        keep=group(_KEEP),
        prepared=PreparedTexts(rows=group(_PREPARED), token_ids=values("token_ids")),
        dead=values("dead"),
        seconds=json.loads(row.column("seconds")[0].as_py()),
    )


def _as_one_list(values: pa.Array) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)


def _dead_values(letter: DeadLetter) -> dict[str, object]:
    return {
        "slice_index": letter.slice_index,
        "row": letter.row,
        "code": str(letter.code),
        "reason": letter.reason,
    }
