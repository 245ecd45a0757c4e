from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from samples import ROOT

from pipeline.config import EncoderConfig, load_job
from pipeline.encoders import registry
from pipeline.encoders.files.hub import is_commit
from pipeline.encoders.precision import detect
from pipeline.exceptions import ModelError

NAMES = [
    "all-minilm-l6-v2",
    "e5-base-v2",
    "gte-modernbert-base",
    "gte-small",
    "instructor-large",
    "nomic-embed-text-v1.5",
    "qwen3-embedding-0.6b",
    "sgpt-bloom-7b1-msmarco",
]
HOSTED = ["text-embedding-3-small"]
SPECS = [ROOT / f"jobs/specs/{name}.yaml" for name in NAMES]
TOO_LARGE = "sgpt-bloom-7b1-msmarco"
"""28 GB of weights."""


def example_of(spec: Path) -> dict[str, Any]:
    """Return the model card's example from the comments at a spec's head."""
    comments = [line.removeprefix("#").removeprefix(" ") for line in spec.read_text().splitlines() if line[:1] == "#"]
    example: dict[str, Any] = yaml.safe_load("\n".join(comments[comments.index("example:") :]))["example"]
    return example


def test_every_family_with_a_spec_has_its_file():
    assert sorted(spec.stem for spec in (ROOT / "jobs/specs").glob("*.yaml")) == sorted([*NAMES, *HOSTED])


@pytest.mark.parametrize("name", HOSTED)
def test_a_spec_of_a_hosted_model_names_its_service_and_where_the_key_is(name):
    job = load_job(ROOT / f"jobs/specs/{name}.yaml", ["input.uri=s3://corpora/a/", "output.uri=s3://vectors/a/"])
    assert (job.name, job.encoder.model, job.encoder.backend) == (name, name, "remote")
    assert job.encoder.remote.api_key_env
    assert job.limits.max_cost


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.stem)
def test_a_spec_is_a_job_of_a_pinned_model_whose_places_can_be_overridden(spec):
    job = load_job(spec, ["input.uri=s3://corpora/a/", "output.uri=s3://vectors/a/"])
    assert (job.input.uri, job.output.uri) == ("s3://corpora/a/", "s3://vectors/a/")
    assert job.name == spec.stem
    assert is_commit(job.encoder.revision)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.stem)
def test_a_spec_tells_the_example_of_its_card_with_the_prompts_its_family_needs(spec):
    example, encoder = example_of(spec), load_job(spec).encoder
    assert all(0 <= query["first"] < len(example["documents"]) for query in example["queries"])
    prompted = {bool(document.get("prompt")) for document in example["documents"]}
    assert prompted == {encoder.prompt is not None}


def rank_first(encoder: EncoderConfig, example: dict[str, Any]) -> list[int]:
    assert encoder.brackets is None, "queries and documents would need a load each"
    spec = registry.resolve(encoder.model_copy(update={"dtype": "float32"}), detect("cpu"))
    preparer, model = registry.build_preparer(spec), registry.build_encoder(spec, "cpu", 1)
    queries, documents = (
        model.encode(preparer.prepare([text["text"] for text in texts], [text.get("prompt", "") for text in texts]))
        for texts in (example["queries"], example["documents"])
    )
    return [int(row) for row in np.argmax(queries @ documents.T, axis=1)]


@pytest.mark.model
def test_the_example_of_minilm_comes_out_as_its_card_says():
    spec = ROOT / "jobs/specs/all-minilm-l6-v2.yaml"
    encoder = load_job(spec, ["encoder.model=packaged:all-MiniLM-L6-v2", "encoder.revision=null"]).encoder
    example = example_of(spec)
    assert rank_first(encoder, example) == [query["first"] for query in example["queries"]]


@pytest.mark.slow
@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.stem != TOO_LARGE], ids=lambda spec: spec.stem)
def test_the_example_of_a_card_comes_out_where_the_hub_gives_the_model(spec):
    example = example_of(spec)
    try:
        found = rank_first(load_job(spec).encoder, example)
    except ModelError as error:
        if "does not give it" not in error.reason and "HF_HUB_OFFLINE" not in error.reason:
            raise
        pytest.skip(error.reason)
    assert found == [query["first"] for query in example["queries"]]
