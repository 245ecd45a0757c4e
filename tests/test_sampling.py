"""What a plan says of the first rows: their tokens, how many are too long, and the cores that tokenizing takes."""

from __future__ import annotations

import pytest
from samples import write_jsonl

from jobs.console import rounded
from pipeline.config import parse_job
from pipeline.corpus import CorpusFiles
from pipeline.dry_run import preview
from pipeline.encoders import precision, registry
from pipeline.exceptions import ConfigError
from pipeline.plan import make_plan
from pipeline.sampling import prepare_first

CPU = precision.Device(kind="cpu", bf16=False)
MODEL = {"model": "packaged:all-MiniLM-L6-v2", "max_seq_length": 8}


@pytest.fixture
def job(tmp_path):
    return {
        "input": {"uri": str(tmp_path / "in"), "format": "jsonl"},
        "encoder": MODEL,
        "output": {"uri": str(tmp_path / "out")},
        "cluster": {"address": "local", "device": "cpu"},
    }


def sample(job, rows):
    config = parse_job(job)
    spec = registry.resolve(config.encoder, CPU)
    return prepare_first(config, spec, CorpusFiles(config.input.uri).discover("jsonl").sources, rows)


def test_rows_are_taken_from_the_first_files_until_there_are_enough(job, tmp_path):
    for name, words in (("a", 1), ("b", 2), ("c", 3)):
        write_jsonl(tmp_path / f"in/{name}.jsonl", [{"text": "word " * words}] * 4)
    prepared, found = sample(job, 6)
    assert prepared.n_tokens.tolist() == [3, 3, 3, 3, 4, 4]
    assert (found.rows, found.tokens, found.truncated) == (6, 20, 0)
    assert found.tokens_per_core_s > 0


def test_rows_that_are_too_long_and_rows_without_text_are_told_apart(job, tmp_path):
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "word " * 7}, {"text": ""}, {"text": "word"}, {"other": 1}])
    _, found = sample(job, 100)
    assert (found.rows, found.tokens, found.truncated) == (2, 11, 1)


def test_prompts_of_rows_are_counted(job, tmp_path):
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "word", "kind": "news"}])
    job["encoder"] = {**MODEL, "prompt": {"template": "{kind} of "}}
    _, found = sample(job, 100)
    assert found.tokens == 5


def test_no_usable_row_gives_no_sample(job, tmp_path):
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": ""}])
    assert sample(job, 100) is None


def test_a_preview_scales_the_sample_to_all_rows_and_leaves_the_plan_alone(job, tmp_path):
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "word"}] * 600 + [{"text": "two words"}] * 400)
    config = parse_job(job)
    found = preview(config)
    assert found.sample.rows == 512
    assert found.tokens_estimate == 3 * 1000
    estimate = found.tokenizing
    assert estimate.replica_tokens_per_s == round(estimate.assumed_flops_per_s / estimate.flops_per_token)
    assert estimate.cores_per_replica == round(estimate.replica_tokens_per_s / estimate.tokens_per_core_s, 3)
    assert found.plan_id == make_plan(config, precision.detect("cpu")).plan_id
    assert not (tmp_path / "out").exists()


def test_a_preview_of_an_encoder_without_tokens_counts_words_and_estimates_no_cores(job, tmp_path):
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "two words"}] * 3)
    found = preview(parse_job({**job, "encoder": {"model": "hashing:8"}}))
    assert found.tokens_estimate == 6
    assert found.tokenizing is None


def test_a_preview_of_an_input_without_rows_has_no_sample(job, tmp_path):
    write_jsonl(tmp_path / "in/a.jsonl", [])
    found = preview(parse_job(job))
    assert (found.rows, found.sample, found.tokens_estimate, found.tokenizing) == (0, None, None, None)


def test_the_command_names_the_sample_and_its_assumptions(job, tmp_path, embatch):
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "word " * 7}, {"text": "word"}])
    arguments = ("--input", job["input"]["uri"], "--output", job["output"]["uri"], "--model", MODEL["model"])
    keys = ("encoder.max_seq_length=8", "cluster.device=cpu", "encoder.dtype=float16")
    shown = embatch("plan", *arguments, *(f"--set={key}" for key in keys)).stdout
    assert "padded: there is no packed forward in float16 on a CPU" in shown
    assert "about 11: the first 2 rows have 6 each, 50.0% of them are too long" in shown
    assert "estimated from 21.2 MFLOPs a token at" in shown


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (7, "7"), (999.4, "999"), (999.6, "1 k"), (123_456, "123 k"), (2.5e15, "2,500 T")]
)
def test_estimates_are_written_with_three_digits(count, text):
    assert rounded(count) == text


def test_a_column_that_is_not_there_is_told_and_not_taken_for_rows_without_text(job, tmp_path):
    write_jsonl(tmp_path / "in/a.jsonl", [{"text": "word"}])
    job["input"]["text"] = "txt"
    with pytest.raises(ConfigError, match=r"input\.text: no such column .*did you mean 'text'\?"):
        sample(job, 100)
