"""A job from nothing to a manifest, and again, and with another configuration or input."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest
from samples import make_rows, write_jsonl

from pipeline.config import parse_job
from pipeline.exceptions import (
    DeadRateError,
    EmptyInputError,
    ForeignOutputError,
    ModelError,
    PlanChangedError,
    SourceChangedError,
)
from pipeline.job import RunOptions, run
from pipeline.status import status

pytestmark = pytest.mark.ray


def changed(config, **sections):
    values = config.model_dump()
    for section, keys in sections.items():
        values[section] |= keys
    return parse_job(values)


def test_every_row_comes_out_once(finished, rows_of):
    assert finished.report.complete
    assert finished.report.totals["rows_in"] == finished.report.totals["rows_ok"] == 300
    expected = [(name, row) for name in ("a.jsonl", "b.jsonl.gz", "c.parquet") for row in range(100)]
    assert rows_of(finished.config.output.uri) == expected


def test_a_second_run_does_nothing(finished):
    second = run(finished.config)
    assert second.complete
    assert second.this_run["units"] == 0
    assert second.content_digest == finished.report.content_digest


def test_a_deleted_shard_is_made_again(finished):
    gone, *_ = sorted(Path(finished.config.output.uri, "data").iterdir())
    data = gone.read_bytes()
    gone.unlink()
    report = run(finished.config)
    assert report.this_run["units"] == 1
    assert "1 shards of the finished output are gone" in report.warnings[0]
    assert gone.read_bytes() == data
    assert report.content_digest == finished.report.content_digest


def test_output_is_plain_parquet_to_every_reader(finished):
    data = f"{finished.config.output.uri}/data"
    arrow = ds.dataset(data, format="parquet").to_table()
    assert arrow.num_rows == 300
    assert str(arrow.schema.field("embedding").type).startswith("fixed_size_list<element: float")
    assert arrow.schema.field("year").type == "int64"
    frame = pd.read_parquet(data)
    assert len(frame) == frame["id"].nunique() == 300
    polars = pl.read_parquet(f"{data}/*.parquet")
    assert polars.schema["embedding"] == pl.Array(pl.Float32, 16)
    assert polars["id"].n_unique() == 300
    query = f"select count(*), count(distinct id), min(len(embedding)) from read_parquet('{data}/*.parquet')"
    assert duckdb.sql(query).fetchall() == [(300, 300, 16)]


def test_another_encoder_is_refused_with_the_difference(finished):
    with pytest.raises(PlanChangedError, match=r'encoder\.model: "hashing:16" -> "hashing:32"'):
        run(changed(finished.config, encoder={"model": "hashing:32"}))


def test_limits_and_cluster_are_not_identity(finished):
    assert run(changed(finished.config, limits={"max_dead_rate": 0.5}, cluster={"replicas": 1})).complete


def test_a_changed_source_is_refused(finished):
    write_jsonl(finished.corpus / "a.jsonl", make_rows(0, 101))
    with pytest.raises(SourceChangedError, match=r"a\.jsonl: size \d+ -> \d+"):
        run(finished.config)


def test_changed_sources_can_be_set_aside(config, corpus):
    # the plan pins the files; then one changes before anything was encoded
    from pipeline import plan as plans
    from pipeline import planning
    from pipeline.storage import open_store

    plans.publish(open_store(config.output.uri), planning.make(config))
    write_jsonl(corpus / "a.jsonl", make_rows(0, 101))
    relaxed = changed(config, limits={"max_dead_rate": 1.0})
    report = run(relaxed, RunOptions(skip_changed=True))
    assert report.totals["dead_by_code"] == {"SOURCE_CHANGED": 100}
    assert report.totals["rows_ok"] == 200


def test_a_new_source_is_reported_and_left_out(finished):
    write_jsonl(finished.corpus / "d.jsonl", make_rows(900, 1))
    report = run(finished.config)
    assert report.totals["rows_in"] == 300
    assert "d.jsonl" in report.warnings[0]


def test_too_many_dead_letters_publish_nothing_until_the_limit_allows_it(config, corpus):
    (corpus / "broken.jsonl").write_text('{"id": 1, "text": "fine", "year": 1}\nnot json\n{"id": 2, "year": 2}\n')
    with pytest.raises(DeadRateError, match="2 of 303 rows are dead letters"):
        run(config)
    assert status(config.output.uri).rows_dead == 2
    report = run(changed(config, limits={"max_dead_rate": 0.01}))
    assert report.complete
    assert report.this_run["units"] == 0
    assert report.totals["dead_by_code"] == {"BAD_JSON": 1, "MISSING_TEXT": 1}


def test_empty_texts_do_not_count_against_the_limit(config, corpus):
    write_jsonl(corpus / "empty.jsonl", [{"id": 1, "text": "  ", "year": 1}, {"id": 2, "text": None, "year": 2}])
    report = run(config)
    assert report.totals["dead_by_code"] == {"EMPTY": 2}


def test_a_foreign_folder_is_refused(config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(ForeignOutputError, match=r"notes\.txt"):
        run(config)


def test_no_rows_complete_or_fail_as_asked(config, tmp_path):
    write_jsonl(tmp_path / "none/a.jsonl", [])
    empty = changed(config, input={"uri": str(tmp_path / "none"), "keep": ()}, output={"vectors": "int8"})
    with pytest.raises(EmptyInputError):
        run(empty, RunOptions(fail_on_empty=True))
    assert run(empty).totals["rows_in"] == 0


def test_a_trial_embeds_the_first_rows_and_says_so(config):
    report = run(changed(config, input={"limit": 130}))
    assert report.trial
    assert report.totals["rows_in"] == 130


def test_long_texts_can_be_rejected(config, corpus):
    values = changed(config, encoder={"model": "packaged:all-MiniLM-L6-v2"}, text={"long": "reject"})
    write_jsonl(corpus / "long.jsonl", [{"id": 1, "text": "word " * 1000, "year": 1}])
    report = run(changed(values, limits={"max_dead_rate": 1.0}))
    assert report.totals["dead_by_code"] == {"TOO_LONG": 1}


def test_a_model_that_changed_after_the_plan_ends_the_run(config, tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        run(changed(config, encoder={"model": str(tmp_path / "nowhere")}))
