"""Options become a job, or are refused by their name."""

from __future__ import annotations

from datetime import date

import pytest

from jobs.arguments import JobArguments, day
from pipeline.exceptions import ConfigError


def test_day_goes_where_the_options_leave_a_place_for_it():
    given = {"input_": "corpus/{ds}/", "output": "vectors/{ds}/", "model": "hashing:8", "ds": "2026-11-24"}
    job = JobArguments(set_=["name=docs-{ds}"], **given).load()
    assert (job.name, job.input.uri, job.output.uri) == ("docs-2026-11-24", "corpus/2026-11-24/", "vectors/2026-11-24/")


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-02-29", "24.11.2026", "2026-11-24T00:00"])
def test_day_that_is_none_is_refused_by_its_option(text):
    with pytest.raises(ConfigError, match=f"--from: {text!r} is not a day; write it as 2026-11-24"):
        day("--from", text)


@pytest.mark.parametrize("text", ["20261124", "2026-W48-2"])
def test_day_in_another_form_is_refused_with_the_right_one(text):
    with pytest.raises(ConfigError, match=f"--ds: write {text!r} as 2026-11-24"):
        day("--ds", text)


def test_day_is_a_date():
    assert day("--ds", "2028-02-29") == date(2028, 2, 29)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, "give a job file, or all three of --input, --output and --model"),
        ({"input_": "corpus"}, "give a job file, or also --output and --model"),
        ({"input_": "corpus", "model": "hashing:8"}, "give a job file, or also --output"),
    ],
)
def test_what_is_missing_is_named(given, asked):
    with pytest.raises(ConfigError) as caught:
        JobArguments(**given).load()
    assert str(caught.value) == f"JOB.yaml: {asked}"


def test_help_shows_flags_without_a_value_and_an_error_names_the_verb(embatch):
    shown = embatch("run", "--help", COLUMNS="80").stdout
    assert "--takeover" in shown
    assert "<bool>" not in shown + embatch("jobs", "--help", COLUMNS="80").stdout
    done = embatch("run", "--nothing")
    assert (done.returncode, "see embatch run --help" in done.stderr) == (2, True)
