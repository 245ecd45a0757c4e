"""A job is refused for what is wrong with it, by the key's path, before anything runs."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ValidationError

from pipeline.config import JobConfig, Section, load_job, parse_job
from pipeline.exceptions import ConfigError

JOB: dict[str, Any] = {
    "input": {"uri": "corpus"},
    "encoder": {"model": "hashing:8"},
    "output": {"uri": "out"},
}


def merged(path: str, value: object) -> dict[str, Any]:
    """Return the job with one key set."""
    *sections, last = path.split(".")
    job: dict[str, Any] = {name: dict(section) for name, section in JOB.items()}
    place = job
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return job


def refusal(values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_job(values)
    return str(caught.value)


def test_smallest_job_has_every_default():
    job = parse_job(JOB)
    assert (job.name, job.version, job.text.long, job.input.text, job.input.keep) == (
        "embatch",
        1,
        "truncate",
        "text",
        (),
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("inputs", "inputs: unknown key; did you mean 'input'?"),
        ("input.urls", "input.urls: unknown key; did you mean 'uri'?"),
        ("encoder.poolin", "encoder.poolin: unknown key; did you mean 'pooling'?"),
        ("encoder.prompt.txt", "encoder.prompt.txt: unknown key; did you mean 'text'?"),
        ("text.lng", "text.lng: unknown key; did you mean 'long'?"),
        ("output.unit_row", "output.unit_row: unknown key; did you mean 'unit_rows'?"),
        ("limits.dead_rate", "limits.dead_rate: unknown key; did you mean 'max_dead_rate'?"),
        ("cluster.replica", "cluster.replica: unknown key; did you mean 'replicas'?"),
        ("text.zzz", "text.zzz: unknown key; valid here: long"),
        ("unit_rows", "unit_rows: unknown key; did you mean 'output.unit_rows'?"),
    ],
)
def test_unknown_key_is_named_with_the_nearest_one(path, message):
    assert refusal(merged(path, 1)) == message


def test_misspelt_key_is_told_before_the_one_it_leaves_missing():
    assert refusal({**JOB, "input": {"url": "corpus"}}) == "input.url: unknown key; did you mean 'uri'?"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 2, "version: input should be 1 (got 2)"),
        ("name", "a b", "name: string should match pattern"),
        ("name", "-x", "name: string should match pattern"),
        ("input.uri", "", "input.uri: string should have at least 1 character (got '')"),
        ("input.uri", 5, "input.uri: input should be a valid string (got 5)"),
        ("input.uri", None, "input.uri: input should be a valid string (got None)"),
        ("input.text", "", "input.text: string should have at least 1 character"),
        ("input.text", "\ud800", "input.text: input should be a valid string, unable to parse"),
        ("input.format", "xml", "input.format: input should be 'auto', 'parquet', 'jsonl', 'csv' or 'tsv' (got 'xml')"),
        ("input.limit", 0, "input.limit: input should be greater than 0 (got 0)"),
        ("input.limit", True, "input.limit: input should be a valid integer (got True)"),
        ("input.limit", "5", "input.limit: input should be a valid integer (got '5')"),
        ("input.limit", 5.0, "input.limit: input should be a valid integer (got 5.0)"),
        ("input.keep", "year", "input.keep: write a list, such as [a, b], or write a mapping (got 'year')"),
        ("input.keep", [1], "input.keep: input should be a valid string (got 1)"),
        ("input.keep", {"year": "int8"}, "input.keep: input should be 'string', 'int32'"),
        (
            "input.text",
            {"title": None},
            "input.text: input should be a valid string: YAML reads braces as a mapping, so put the value in quotes",
        ),
        ("encoder.dtype", "int8", "encoder.dtype: input should be 'auto', 'float32', 'float16' or 'bfloat16'"),
        ("encoder.prompt", 5, "encoder.prompt: holds keys of its own, one a line (got 5)"),
        ("encoder.prompt", {}, "encoder.prompt: give exactly one of text, name, template, column (got none)"),
        (
            "encoder.prompt",
            {"text": "a", "name": "b"},
            "encoder.prompt: give exactly one of text, name, template, column (got text, name)",
        ),
        (
            "encoder.prompt",
            {"text": "a", "vocabulary": ["a"]},
            "encoder.prompt: vocabulary is for prompts a row, by template or column; this one is by text",
        ),
        (
            "encoder.prompt",
            {"column": "a", "vocabulary": []},
            "encoder.prompt.vocabulary: tuple should have at least 1 item after validation, not 0",
        ),
        ("encoder.truncate_dim", 0, "encoder.truncate_dim: input should be greater than 0 (got 0)"),
        ("output.vectors", "int4", "output.vectors: input should be 'float32', 'float16', 'int8' or 'binary'"),
        ("text.long", "cut", "text.long: input should be 'truncate' or 'reject' (got 'cut')"),
        ("output.unit_rows", "lots", "output.unit_rows: input should be a valid integer, or input should be 'auto'"),
        ("output.unit_rows", 0, "output.unit_rows: input should be greater than 0, or input should be 'auto' (got 0)"),
        ("output.unit_bytes", 5, "output.unit_bytes: input should be greater than or equal to 1024 (got 5)"),
        ("limits.max_dead_rate", 1.5, "limits.max_dead_rate: input should be less than or equal to 1 (got 1.5)"),
        ("limits.max_dead_rate", float("nan"), "limits.max_dead_rate: input should be"),
        ("limits.max_dead_rate", True, "limits.max_dead_rate: input should be a valid number (got True)"),
        ("limits.stall_seconds", 0, "limits.stall_seconds: input should be greater than 0 (got 0)"),
        ("limits.deadline", 3600, "limits.deadline: write a duration, such as 90s, 45m, 2h or 1h30m (got 3600)"),
        ("limits.deadline", "", "limits.deadline: write a duration"),
        ("limits.deadline", "0s", "limits.deadline: write a duration"),
        ("limits.deadline", "2 hours", "limits.deadline: write a duration"),
        ("limits.deadline", "30m1h", "limits.deadline: write a duration"),
        ("limits.max_tokens", 0, "limits.max_tokens: input should be greater than 0 (got 0)"),
        ("limits.max_cost", 0.0, "limits.max_cost: input should be greater than 0 (got 0.0)"),
        ("limits.max_cost", 5.0, "limits.max_cost: needs encoder.remote.price_per_million_tokens, above 0"),
        ("limits.grace_seconds", -1, "limits.grace_seconds: input should be greater than or equal to 0 (got -1)"),
        (
            "cluster.replicas",
            -1,
            "cluster.replicas: input should be greater than 0 (got -1)",
        ),
        ("input", "corpus", "input: holds keys of its own, one a line (got 'corpus')"),
        ("limits", None, "limits: holds keys of its own, one a line (got None)"),
    ],
)
def test_wrong_value_is_named_by_the_path_of_its_key(path, value, message):
    assert refusal(merged(path, value)).startswith(message)


@pytest.mark.parametrize(
    ("deadline", "seconds"), [("90s", 90), ("45m", 2700), ("1h30m", 5400), ("1d", 86_400), ("1d2h3m4s", 93_784)]
)
def test_deadline_is_a_duration(deadline, seconds):
    assert parse_job(merged("limits.deadline", deadline)).limits.deadline_s == seconds


@pytest.mark.parametrize("path", ["input", "encoder", "output", "input.uri", "encoder.model", "output.uri"])
def test_required_keys_are_asked_for(path):
    section, _, key = path.partition(".")
    left = {name: value for name, value in JOB[section].items() if name != key}
    job = {name: value for name, value in JOB.items() if name != section}
    assert refusal({**job, section: left} if key else job) == f"{path}: is required"


def test_all_that_is_missing_is_asked_for_at_once():
    assert refusal({"input": JOB["input"]}) == "encoder: is required, and so is output"
    assert refusal({"input": {}}) == "input.uri: is required, and so are encoder, output"


@pytest.mark.parametrize("values", [[], "job", None, 5])
def test_job_that_is_no_mapping_is_refused(values):
    assert refusal(values).startswith("job: holds keys of its own")


def test_key_that_is_no_text_is_refused():
    assert refusal({**JOB, 1: 2}) == "1: keys should be strings (got 1)"


def test_long_value_is_cut_in_the_message():
    assert len(refusal(merged("input.format", "x" * 100_000))) < 400


@pytest.mark.parametrize("path", ["input.uri", "output.uri", "encoder.model"])
@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:canary-secret@bucket/key",
        "https://canary-secret@host/key",
        "memory::s3://user:canary-secret@bucket",
        "simplecache::https://host/a::s3://user:canary-secret@bucket/b",
        "abfs://user:canary-secret@account/path",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(path, uri):
    message = refusal(merged(path, uri))
    assert message.startswith(f"{path}: credentials do not belong in a URI")
    assert "canary-secret" not in message


def test_credentials_are_not_repeated_where_something_else_is_wrong():
    assert "canary-secret" not in refusal(merged("input", ["s3://user:canary-secret@bucket"]))
    assert "canary-secret" not in refusal(merged("output", {"url": "s3://user:canary-secret@bucket"}))


@pytest.mark.parametrize("uri", ["abfs://container@account.dfs.core.windows.net/a", "s3://bucket/a@b", "/data/a@b:c"])
def test_at_sign_alone_is_no_credential(uri):
    assert parse_job(merged("input.uri", uri)).input.uri == uri


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("query: ", {"text": "query: "}),
        ("", {"text": ""}),
        ({"name": "query"}, {"name": "query"}),
        ({"template": "Represent the {domain}: "}, {"template": "Represent the {domain}: "}),
        ({"column": "instruction"}, {"column": "instruction"}),
    ],
)
def test_prompt_takes_each_of_its_forms(prompt, expected):
    parsed = parse_job(merged("encoder.prompt", prompt)).encoder.prompt
    assert parsed is not None
    assert parsed.model_dump(exclude_none=True) == expected


def test_no_prompt_is_none():
    assert parse_job(merged("encoder.prompt", None)).encoder.prompt is None


@pytest.mark.parametrize(
    ("keep", "types"),
    [
        ([], {}),
        (["b", "a"], {"b": None, "a": None}),
        ({"b": "int32", "a": "string"}, {"b": "int32", "a": "string"}),
    ],
)
def test_kept_columns_are_a_list_or_typed(keep, types):
    kept = parse_job(merged("input.keep", keep)).input.keep_types
    assert list(kept.items()) == list(types.items())


def test_overrides_are_set_before_the_job_is_checked():
    job = load_job(None, ["input.uri=a", "encoder.model=hashing:4", "output.uri=b", "input.limit=5", "input.keep=[x]"])
    assert (job.input.limit, job.input.keep) == (5, ("x",))


def test_published_schema_takes_a_job_before_its_day_is_put_in():
    schema = {**JobConfig.model_json_schema(), "required": ["name"]}
    for name in ("docs", "docs-{ds}", "{ds}"):
        jsonschema.validate({"name": name}, schema)
    for name in ("docs-{date}", "-{ds}", ""):
        with pytest.raises(jsonschema.ValidationError, match="does not match"):
            jsonschema.validate({"name": name}, schema)


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The sections of a job, as the fields name them."""
    yield model
    for field in model.model_fields.values():
        for kind in getattr(field.annotation, "__args__", (field.annotation,)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from models(kind)


@pytest.mark.parametrize("model", list(models(JobConfig)), ids=lambda model: model.__name__)
def test_every_key_is_described(model):
    undescribed = [
        name
        for name, field in model.model_fields.items()
        if not field.description and not isinstance(field.annotation, type(Section))
    ]
    assert undescribed == []
    assert model.__doc__


def test_job_is_frozen_and_survives_pickling():
    job = parse_job(merged("encoder.prompt", "query: "))
    with pytest.raises(ValidationError, match="frozen"):
        job.input.text = "other"
    assert pickle.loads(pickle.dumps(job)) == job
    assert parse_job(job.model_dump(mode="json")) == job


HOSTED = {"model": "text-embedding-3-small", "backend": "remote"}
API = {"base_url": "https://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY"}


def hosted(remote: Any, **sections: Any) -> dict[str, Any]:
    """Return a job of a hosted model."""
    return {**JOB, "encoder": {**HOSTED, "remote": remote}, **sections}


def test_a_hosted_model_needs_an_address_and_its_backend():
    assert refusal({**JOB, "encoder": HOSTED}).startswith("encoder.remote: encoder.backend: remote and encoder.remote")
    assert refusal({**JOB, "encoder": {"model": "m", "remote": API}}).startswith(
        "encoder.backend: encoder.backend: remote"
    )
    assert refusal(hosted({})) == "encoder.remote.base_url: is required"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://API.openai.com/v1/", "https://api.openai.com/v1"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://gateway/Team/v1", "http://gateway/Team/v1"),
    ],
)
def test_one_address_is_written_one_way(written, meant):
    assert parse_job(hosted({"base_url": written})).encoder.remote.identity()["service"] == meant


@pytest.mark.parametrize(
    ("remote", "message"),
    [
        ({"base_url": "api.openai.com"}, "encoder.remote.base_url: write an address such as https://api.openai.com/v1"),
        ({"base_url": "ftp://5ecret"}, "encoder.remote.base_url: write an address such as https://api.openai.com/v1"),
        ({"base_url": "https://a:5ecret/v1"}, "encoder.remote.base_url: write an address such as"),
        ({"base_url": "https://a 5ecret/v1"}, "encoder.remote.base_url: write an address such as"),
        ({"base_url": "https://[a/v1"}, "encoder.remote.base_url: write an address such as"),
        ({"base_url": "https://a/v1/embeddings"}, "encoder.remote.base_url: write only what stands before /embeddings"),
        ({"base_url": "https://a/v1?key=5ecret"}, "encoder.remote.base_url: write only what stands before /embeddings"),
        ({"base_url": "https://me:5ecret@a/v1"}, "encoder.remote.base_url: credentials do not belong in a URI"),
        ({**API, "api_key_env": "sk-5ecret"}, "encoder.remote.api_key_env: write the name of an environment variable"),
        ({**API, "api_key_env": "hf_5ecret"}, "encoder.remote.api_key_env: write the name of an environment variable"),
        ({**API, "api_key_env": ["5ecret"]}, "encoder.remote.api_key_env: input should be a valid string"),
        ({**API, "api_key_file": "sk-5ecret"}, "encoder.remote.api_key_file: write the whole path of a file"),
        ({**API, "api_key_file": "/5ecret"}, "encoder.remote.api_key_file: give this or api_key_env, not both"),
        ({**API, "api_key": "sk-5ecret"}, "encoder.remote.api_key: unknown key; did you mean 'api_key_env'?"),
        ("5ecret", "encoder.remote: holds keys of its own, one a line"),
        (
            {**API, "max_batch_items": 2049},
            "encoder.remote.max_batch_items: input should be less than or equal to 2048",
        ),
        ({**API, "concurrency": 0}, "encoder.remote.concurrency: input should be greater than 0 (got 0)"),
    ],
)
def test_what_is_wrong_with_an_api_is_named_and_no_key_repeated(remote, message):
    said = refusal(hosted(remote))
    assert said.startswith(message)
    assert "5ecret" not in said


@pytest.mark.parametrize(
    ("key", "value"),
    [("revision", "main"), ("pooling", "cls"), ("max_seq_length", 5), ("dtype", "float32"), ("max_batch_tokens", 9)],
)
def test_keys_that_a_hosted_model_cannot_heed_are_refused(key, value):
    job = {**JOB, "encoder": {**HOSTED, "remote": API, key: value}}
    assert refusal(job).startswith(f"encoder.{key}: means nothing to a hosted model")


def test_a_hosted_model_takes_no_gpu():
    assert refusal(hosted(API, cluster={"device": "cuda"})).startswith("cluster.device: a hosted model")


def test_a_job_of_a_hosted_model_survives_being_written_out():
    job = parse_job(hosted({**API, "price_per_million_tokens": 0.02}, limits={"max_cost": 5.0}))
    assert parse_job(job.model_dump(mode="json")) == job
    assert job.encoder.cost(1_500_000) == pytest.approx(0.03)
    assert parse_job(JOB).encoder.cost(10) is None
