"""Small shards of made-up units."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from pipeline import schema, shard
from pipeline.plan import shard_key

PLAN_ID = "0123456789ab" + "c" * 52


@pytest.fixture(scope="session")
def plan_id() -> str:
    """The plan that shards belong to unless told otherwise."""
    return PLAN_ID


@pytest.fixture(scope="session")
def make_shard() -> Callable[..., shard.Shard]:
    """Build the shard of a unit with three rows, the last of them dead where it has `dead` letters."""

    def make(unit: int, *, value: float = 0.5, dead: int = 0, plan_id: str = PLAN_ID, key: str = "") -> shard.Shard:
        rows = [
            {
                "id": f"{unit}-{row}",
                "embedding": [value, 0.0],
                "n_tokens": 3,
                "truncated": row == 0,
                "source_file": "a.jsonl",
                "source_row": 3 * unit + row,
            }
            for row in range(3 - dead)
        ]
        table = pa.Table.from_pylist(rows, schema=schema.output_schema({}, 2))
        letters = [("a.jsonl", 3 * unit + row, "BAD_JSON", "not JSON") for row in range(3 - dead, 3)]
        info = shard.ShardInfo(plan_id=plan_id, unit=unit, description={"model": "made-up"})
        return shard.build(info, key or shard_key(plan_id, unit), table, shard.dead_table(letters))

    return make
