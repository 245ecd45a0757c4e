"""What is said of a job with a hosted model before it is run: its plan, its cost, and whether the API can be used."""

from __future__ import annotations

import pytest
import stamina
from openai_server import KEY, MODEL
from samples import make_rows, write_jsonl

from jobs.console import amount
from jobs.verbs.plan import _sample_lines
from pipeline import plan as plans
from pipeline.config import RemoteConfig, parse_job
from pipeline.doctor import REMOTE_REMEDY, diagnose
from pipeline.doctor.job import api_key
from pipeline.dry_run import preview
from pipeline.encoders import precision
from pipeline.encoders.measuring import tuning
from pipeline.encoders.precision import Device
from pipeline.exceptions import ConfigError, PlanChangedError
from pipeline.plan.making import REMOTE_UNIT_ROWS
from pipeline.storage import open_store

GPU = Device(kind="cuda", bf16=True)


@pytest.fixture
def values(server, tmp_path, monkeypatch):
    """A job of 300 rows."""
    monkeypatch.setenv("TEST_API_KEY", KEY)
    write_jsonl(tmp_path / "corpus/a.jsonl", make_rows(0, 300))
    return {
        "input": {"uri": str(tmp_path / "corpus")},
        "encoder": {
            "model": MODEL,
            "backend": "remote",
            "remote": {"base_url": server.url, "api_key_env": "TEST_API_KEY", "price_per_million_tokens": 1000.0},
        },
        "output": {"uri": str(tmp_path / "out"), "unit_rows": 100},
    }


def changed(values, **remote):
    encoder = values["encoder"]
    return parse_job({**values, "encoder": {**encoder, "remote": {**encoder["remote"], **remote}}})


def test_a_plan_tells_requests_tokens_and_cost_beforehand(server, values):
    found = preview(changed(values, max_batch_items=32))
    assert (found.backend, found.dimension, found.revision, found.limit) == (
        "remote",
        16,
        MODEL,
        "as many tokens as the API takes",
    )
    asking = found.asking
    assert (asking.url, asking.requests) == (f"{server.url}/embeddings", 3 * 4)
    assert asking.tokens == found.tokens_estimate
    assert asking.cost == pytest.approx(asking.tokens / 1000)
    assert found.tokenizing is None
    said = dict(_sample_lines(found.to_values()))
    assert said["requests"].startswith("about 12 for 2.")
    assert f", cost about {amount(asking.cost)}, estimated at 4 bytes a token; to {server.url}" in said["requests"]
    assert server.seen["requests"] == 1, "a dry run asks for one vector, of one word"


@pytest.mark.parametrize(("cost", "written"), [(0.0, "0"), (0.00005, "0.00005"), (0.25, "0.25"), (1234.5, "1,234.50")])
def test_costs_are_written_as_money(cost, written):
    assert amount(cost) == written


def test_few_tokens_a_request_make_more_requests(values):
    few, many = (preview(changed(values, max_batch_tokens=tokens)).asking for tokens in (200, 300_000))
    assert many.requests == 3
    assert few.requests > 10
    assert few.tokens == many.tokens


def test_the_sample_of_a_calibration_is_asked_for_too(values):
    plain = preview(parse_job(values)).asking
    values["output"]["vectors"] = "int8"
    compact = preview(parse_job(values)).asking
    assert (compact.requests, compact.tokens) == (2 * plain.requests, 2 * plain.tokens)


def test_how_an_api_is_asked_changes_no_plan(values):
    first = plans.make_plan(parse_job(values), GPU)
    how = {"concurrency": 2, "max_batch_items": 9, "timeout_seconds": 5.0, "price_per_million_tokens": None}
    assert plans.make_plan(changed(values, **how), GPU).plan_id == first.plan_id
    assert first.resolved["device"] == "cpu", "no replica takes a GPU"
    assert "TEST_API_KEY" not in str(first.requested)


def test_units_of_a_hosted_model_are_some_requests(values):
    del values["output"]["unit_rows"]
    assert plans.make_plan(parse_job(values), GPU).resolved["unit_rows"] == REMOTE_UNIT_ROWS


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("dimensions", 8, "encoder.remote.dimensions: null -> 8"),
        ("max_chars", 8, "encoder.remote.max_chars: null -> 8"),
        ("service", "ours", 'encoder.remote.service: .* -> "ours"'),
        ("base_url", "http://other/v1", 'encoder.remote.service: .* -> "http://other/v1"'),
    ],
)
def test_what_changes_vectors_is_refused_for_an_output_that_was_planned(values, key, value, line):
    plan = plans.make_plan(parse_job(values), GPU)
    plans.publish(open_store(values["output"]["uri"]), plan)
    with pytest.raises(PlanChangedError, match=line):
        plans.check_unchanged(changed(values, **{key: value}), plan, "out")


def test_a_named_service_may_move(values):
    plan = plans.make_plan(changed(values, service="ours"), GPU)
    plans.check_unchanged(changed(values, service="ours", base_url="http://elsewhere/v1"), plan, "out")


def model_finding(config):
    return {found.check: found for found in diagnose(config)}["model"]


def test_the_doctor_sends_one_text(server, values, monkeypatch):
    found = model_finding(parse_job(values))
    assert (found.level, found.exit_code) == ("ok", 0)
    assert f"{MODEL} at {MODEL}: one text encoded" in found.message
    assert "16 dimensions, float32 on cpu, backend remote" in found.message
    monkeypatch.setenv("TEST_API_KEY", "sk-wr0ng")
    refused = model_finding(parse_job(values))
    assert (refused.level, refused.exit_code, refused.remedy) == ("error", 2, REMOTE_REMEDY)
    assert "refuses the key" in refused.message
    assert "sk-wr0ng" not in refused.message
    monkeypatch.delenv("TEST_API_KEY")
    assert "the variable TEST_API_KEY is not set or empty on" in model_finding(parse_job(values)).message
    server.close()
    with stamina.set_testing(True, attempts=2, cap=True):
        monkeypatch.setenv("TEST_API_KEY", KEY)
        gone = model_finding(parse_job(values))
    assert (gone.level, gone.exit_code) == ("error", 8)


@pytest.mark.parametrize(
    ("base_url", "level"),
    [("https://a/v1", "ok"), ("http://localhost:1/v1", "ok"), ("http://[::1]:1/v1", "ok"), ("http://a/v1", "warning")],
)
def test_a_key_that_travels_unencrypted_is_a_warning(base_url, level):
    assert api_key(RemoteConfig(base_url=base_url, api_key_env="A_KEY")).level == level
    assert api_key(RemoteConfig(base_url=base_url)).level == "ok"


def test_there_is_nothing_to_tune(values):
    with pytest.raises(ConfigError, match="has nothing to tune"):
        tuning.tune(parse_job(values).encoder, precision.detect("cpu"), tuning.Limits(cpus=1))
