"""The encoder an output was made with, taken from the output itself, for what is compared with its rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_outputs
import numpy as np
import pytest
from encoders import tiny_models

from pipeline import encoder_of, load_encoder, planning
from pipeline import plan as plans
from pipeline.config import parse_job
from pipeline.exceptions import ConfigError, ModelChangedError
from pipeline.storage import open_store

TEXTS = ["a text", "another one, which is longer"]
PROMPTS = {"query": "query: ", "document": "passage: "}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT whose files name prompts for queries and documents."""
    folder = tmp_path_factory.mktemp("models") / "prompted"
    tiny_models.write_model(folder, tiny_models.bert, "word_piece")
    tiny_models.write_chain(folder, [("Pooling", {"pooling_mode_mean_tokens": True}), ("Normalize", {})])
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    return folder


def planned(tmp_path: Path, **encoder: Any) -> str:
    """Plan an output and return where; what is asked for stands in the plan, before any row is encoded."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.jsonl").write_bytes(made_outputs.lines(0, 3))
    config = made_outputs.job(corpus, tmp_path / "out", encoder=encoder)
    plans.publish(open_store(config.output.uri), planning.make(config))
    return config.output.uri


@pytest.mark.parametrize(
    ("prompt", "same_as"), [(None, "passage: "), ({"name": "query"}, "query: "), ("query: ", "query: "), ("", "")]
)
def test_it_has_the_keys_of_the_job_and_the_prompt_that_is_asked_for(model, tmp_path, prompt, same_as):
    keys = {"model": str(model), "dtype": "float32", "truncate_dim": 64, "max_seq_length": 8}
    output = planned(tmp_path, **keys, prompt={"name": "document"})
    expected = load_encoder(**keys, prompt=same_as, device="cpu").encode(TEXTS)
    found = encoder_of(output, prompt=prompt, device="cpu").encode(TEXTS)
    assert found.shape == (2, 64)
    assert np.array_equal(found, expected)


def test_other_model_files_are_refused(model, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in model.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(model)).parent.mkdir(exist_ok=True, parents=True)
            (copy / path.relative_to(model)).write_bytes(path.read_bytes())
    output = planned(tmp_path, model=str(copy), prompt="")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ModelChangedError, match=r"not those of the plan: model\.safetensors"):
        encoder_of(output, device="cpu")


def test_a_hosted_model_needs_its_key(tmp_path):
    output = open_store(planned(tmp_path, model="hashing:16"))
    plan = plans.require(output)
    hosted = {**plan.requested, "encoder": {**plan.requested["encoder"], "remote": {"base_url": "https://a.example"}}}
    (tmp_path / "out/_job/plan.json").unlink()
    plans.publish(output, replace(plan, requested=hosted))
    with pytest.raises(ConfigError, match="use load_encoder"):
        encoder_of(output.uri)


def test_a_series_has_one_encoder(tmp_path):
    uri = f"{tmp_path}/series/1"
    values = made_outputs.job(tmp_path / "corpus", uri, output={"series": f"{tmp_path}/series"}).model_dump(mode="json")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.jsonl").write_bytes(made_outputs.lines(0, 3))
    plans.publish(open_store(uri), planning.make(parse_job(values), joining=True))
    assert np.array_equal(encoder_of(f"{tmp_path}/series").encode(TEXTS), load_encoder("hashing:16").encode(TEXTS))


def test_where_there_is_no_output_that_is_said(tmp_path):
    with pytest.raises(ConfigError, match="holds no embatch output"):
        encoder_of(str(tmp_path))
