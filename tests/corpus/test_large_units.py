"""Rows that are too many bytes for one unit end the run with what to set, before they fill the memory."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_outputs import job

from pipeline import plan as plans
from pipeline.corpus import documents
from pipeline.encoders import precision
from pipeline.exceptions import ConfigError
from pipeline.ray_data.order import make_order
from pipeline.ray_data.reading import read_sample


@pytest.fixture
def order(tmp_path):
    """A unit of 20 rows whose kept values, 2 MB, take a few kB in their file."""
    (tmp_path / "corpus").mkdir()
    columns = {"text": [f"text {row}" for row in range(20)], "section": ["s" * 100_000] * 20, "year": [1] * 20}
    pq.write_table(pa.table(columns), tmp_path / "corpus/a.parquet", row_group_size=5)
    config = job(tmp_path / "corpus", tmp_path / "output")
    plan = plans.make_plan(config, precision.detect("cpu"))
    return plan.units, make_order(config, plan, threads=1, skip_changed=False, log=None)


def test_a_unit_of_too_many_bytes_is_refused_with_the_key_to_set(order, monkeypatch):
    (unit,), orders = order
    monkeypatch.setattr(documents, "MAX_UNIT_BYTES", 1_000_000)
    with pytest.raises(ConfigError, match=r"output\.unit_rows: unit 0, from a\.parquet rows 0 to 19 on, holds more"):
        read_sample(unit, 1, orders)


def test_a_unit_within_them_is_read(order, monkeypatch):
    (unit,), orders = order
    monkeypatch.setattr(documents, "MAX_UNIT_BYTES", 2_100_000)
    assert read_sample(unit, 20, orders).n_tokens.sum() == 20 * 2
