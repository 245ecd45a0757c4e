"""A dry run refuses what a run would refuse, and tells which files a run would leave out."""

from __future__ import annotations

from pathlib import Path

import pytest
from samples import make_rows, write_jsonl

from pipeline import plan as plans
from pipeline.config import parse_job
from pipeline.dry_run import preview
from pipeline.encoders import precision
from pipeline.exceptions import ConfigError, ForeignOutputError, SourceChangedError
from pipeline.storage import open_store


@pytest.fixture
def planned(job):
    """A job whose output has a plan and nothing else."""
    config = parse_job(job)
    plans.publish(open_store(config.output.uri), plans.make_plan(config, precision.detect("cpu")))
    return config


def test_a_folder_of_something_else_is_refused(job):
    folder = Path(job["output"]["uri"])
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ForeignOutputError, match=r"notes\.txt"):
        preview(parse_job(job))
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_source_that_was_rewritten_is_refused(planned, corpus):
    write_jsonl(corpus / "a.jsonl", make_rows(0, 101))
    with pytest.raises(SourceChangedError, match=r"a\.jsonl: size"):
        preview(planned)


def test_files_that_came_after_the_plan_are_told(planned, corpus, embatch):
    assert preview(planned).added == []
    write_jsonl(corpus / "z.jsonl", make_rows(0, 1))
    assert preview(planned).added == ["z.jsonl"]
    keys = ["--set=input.keep=[year]", "--set=output.unit_rows=25"]
    named = ["--input", str(corpus), "--output", planned.output.uri, "--model", "hashing:16"]
    done = embatch("plan", *named, *keys)
    assert "1 file appeared after the plan and will not be embedded: z.jsonl; " in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("output", ["out", "deep/er/out"])
def test_an_output_that_a_pattern_would_find_is_refused(job, corpus, output):
    values = {**job, "input": {"uri": f"{corpus}/**/*.parquet"}, "output": {"uri": f"{corpus}/{output}"}}
    with pytest.raises(ConfigError, match="lies inside the input"):
        preview(parse_job(values))
    assert preview(parse_job({**values, "input": {"uri": f"{corpus}/*.parquet"}})).files == 1
