"""A prompt a row, from the read task to its payload: Ray-free, one unit."""

from __future__ import annotations

import pyarrow as pa
import pytest
from samples import write_jsonl

from pipeline.config import JobConfig, parse_job
from pipeline.encoders.precision import Device
from pipeline.plan import make_plan
from pipeline.ray_data import payload
from pipeline.ray_data.order import WorkOrder
from pipeline.ray_data.payload import Payload
from pipeline.ray_data.reading import read_units
from pipeline.schema import encode_schema

pytestmark = pytest.mark.model
ROWS = [
    {"id": "a", "text": "one", "instruction": "query: ", "domain": "Docs"},
    {"id": "b", "text": "two", "instruction": "the " * 300, "domain": "word " * 300},
    {"id": "c", "text": "word " * 300, "instruction": None, "domain": "Science"},
]


@pytest.fixture
def read(tmp_path):
    write_jsonl(tmp_path / "corpus/a.jsonl", ROWS)

    def read(**sections) -> Payload:
        values = {"input": {"uri": str(tmp_path / "corpus")}, "output": {"uri": str(tmp_path / "out")}, **sections}
        return _read_one_unit(parse_job(values))

    return read


def _read_one_unit(config: JobConfig) -> Payload:
    plan = make_plan(config, Device(kind="cpu", bf16=True))
    order = WorkOrder(
        config=config,
        plan_id=plan.plan_id,
        encoder=plan.resolved["encoder"],
        schema=encode_schema(plan.schema),
        description={},
        device="cpu",
        threads=1,
        skip_changed=False,
    )
    units = pa.table({"units": pa.array([[unit.to_json() for unit in plan.units]])})
    (row,) = read_units(units, order)
    return payload.from_row(row)


@pytest.mark.parametrize("prompt", [{"column": "instruction"}, {"template": "Represent the {domain} text: "}])
def test_a_rows_prompt_without_room_for_its_text_makes_it_a_dead_letter(read, prompt):
    found = read(encoder={"model": "packaged:all-MiniLM-L6-v2", "prompt": prompt})
    assert found.ids.to_pylist() == ["a", "c"]
    assert [(letter["row"], letter["code"]) for letter in found.dead.to_pylist()] == [(1, "TOO_LONG")]
    assert found.dead[0].as_py()["reason"] == "its prompt alone fills all 256 tokens"
    assert found.prepared.rows["truncated"].to_pylist() == [False, True]


def test_rows_that_are_too_long_are_told_from_prompts_that_are(read):
    encoder = {"model": "packaged:all-MiniLM-L6-v2", "prompt": {"column": "instruction"}}
    found = read(encoder=encoder, text={"long": "reject"})
    assert found.ids.to_pylist() == ["a"]
    assert [letter["reason"] for letter in found.dead.to_pylist()] == [
        "its prompt alone fills all 256 tokens",
        "more than 256 tokens",
    ]
