"""Code that a model brings along: refused unless a job trusts it at a commit, and then run in the replicas alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import tiny_models

from pipeline.config import EncoderConfig
from pipeline.encoders import registry
from pipeline.encoders.precision import Device
from pipeline.exceptions import ConfigError, ModelError
from tests.encoders.tiny_folder import serve_hub, write_json

CPU = Device(kind="cpu", bf16=True)
TEXTS = ["a text", "another one, which is longer"]
CODE = {
    "configuration_own.py": """
from transformers import BertConfig

class OwnConfig(BertConfig):
    model_type = "own"
""",
    "modeling_own.py": """
import os
from pathlib import Path
from transformers import BertModel
from .configuration_own import OwnConfig
from .own_parts import doubled

Path(os.environ["RAN"]).touch()

class OwnModel(BertModel):
    config_class = OwnConfig

    def forward(self, input_ids, attention_mask):
        assert attention_mask is not None
        found = super().forward(input_ids=input_ids, attention_mask=attention_mask)
        found.last_hidden_state = doubled(found.last_hidden_state)
        return found
""",
    "own_parts.py": """
def doubled(states):
    return 2 * states
""",
}
AUTO_MAP = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
CHILD = """
import json, os, sys
from pathlib import Path
from pipeline.config import EncoderConfig
from pipeline.encoders import registry
from pipeline.encoders.precision import Device
from pipeline.exceptions import PipelineError

keys = {"model": "owner/tiny", "revision": sys.argv[1], "pooling": "mean", "dtype": "float32"}
spec = registry.resolve(EncoderConfig(**keys, trust_remote_code=True), Device(kind="cpu", bf16=True))
prepared = registry.build_preparer(spec).prepare(json.loads(sys.argv[2]))
found = {"identity": spec.identity(), "ran": [Path(os.environ["RAN"]).exists()]}
vectors = registry.build_encoder(registry.restore(spec.identity()), "cpu", 1).encode(prepared)
found |= {"vectors": vectors.tolist(), "ran": [*found["ran"], Path(os.environ["RAN"]).exists()]}
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
part = Path(spec.folder, "own_parts.py")
part.write_text(part.read_text() + "print('other')")
try:
    registry.restore(spec.identity())
except PipelineError as error:
    found["tampered"] = [str(error), error.exit_code]
print(json.dumps(found))
"""


def bert(vocabulary: int) -> Any:
    return tiny_models.bert(vocabulary, width=64, heads=2, inner=128)


def write_own(folder: Path, **auto_map: str) -> Path:
    """Write a BERT that names its code, as an architecture that transformers does not know."""
    tiny_models.write_model(folder, bert, "word_piece")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "model_type": "own", "auto_map": {**AUTO_MAP, **auto_map}})
    for name, text in CODE.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def trusted(tmp_path_factory):
    """Plan and encode with trusted code, from a hub, in a process of its own."""
    base = tmp_path_factory.mktemp("trusted")
    with serve_hub() as hub:
        commit = hub.commit(write_own(base / "own"))
        places = {"HF_HOME": "hf", "EMBATCH_CACHE": "cache", "RAN": "ran"}
        environment = {**os.environ, **{name: str(base / place) for name, place in places.items()}}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, commit, json.dumps(TEXTS)],
            env={**environment, "HF_ENDPOINT": hub.url},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_trusted_code_computes_the_vectors(trusted, tmp_path):
    tiny_models.write_model(tmp_path, bert, "word_piece")
    spec = registry.resolve(EncoderConfig(model=str(tmp_path), pooling="mean", dtype="float32"), CPU)
    plain = registry.build_encoder(spec, "cpu", 1).encode(registry.build_preparer(spec).prepare(TEXTS))
    assert np.abs(np.array(trusted["vectors"]) - 2 * plain).max() <= 1e-5


def test_trusted_code_runs_where_the_model_is_loaded_and_never_while_it_is_planned(trusted):
    assert trusted["ran"] == [False, True]


def test_a_plan_names_trusted_code_and_its_files(trusted):
    identity = trusted["identity"]
    assert identity["remote_code"] is True
    assert re.fullmatch("[0-9a-f]{40}", identity["revision"])
    assert {name for name in identity["files"] if name.endswith(".py")} == set(CODE)
    assert identity["backend"] == "padded"


def test_trusted_code_that_is_not_the_plans_is_refused(trusted):
    message, exit_code = trusted["tampered"]
    assert "not those of the plan: own_parts.py" in message
    assert exit_code == 6


@pytest.mark.parametrize("revision", [None, "main", "abcdef1"])
def test_code_is_trusted_at_a_full_commit_only(revision):
    config = EncoderConfig(model="owner/tiny", revision=revision, trust_remote_code=True)
    with pytest.raises(ConfigError, match=r"encoder\.revision: .*trust_remote_code takes hub models by a full commit"):
        registry.resolve(config, CPU)


def test_code_of_a_folder_is_never_trusted(tmp_path):
    config = EncoderConfig(model=str(write_own(tmp_path)), trust_remote_code=True)
    with pytest.raises(ConfigError, match=r"encoder\.trust_remote_code: runs code of hub models by a full commit only"):
        registry.resolve(config, CPU)


def test_code_that_is_not_trusted_is_refused_by_the_name_of_the_key(tmp_path):
    with pytest.raises(ModelError, match=r"names code of its own.*encoder\.trust_remote_code") as refusal:
        registry.resolve(EncoderConfig(model=str(write_own(tmp_path)), pooling="mean"), CPU)
    assert refusal.value.exit_code == 6


def test_code_that_transformers_has_taken_over_needs_no_trust(tmp_path):
    from pipeline.encoders.architecture.modules import read_chain

    folder = write_own(tmp_path, AutoModel="Alibaba-NLP/new-impl--modeling.NewModel")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "model_type": "new"})
    with pytest.raises(ConfigError, match=r"transformers has this model.*leave this key out"):
        read_chain("owner/tiny", folder, trusted=True)


@pytest.mark.parametrize(
    ("auto_map", "reason"),
    [
        ({"AutoModel": "other/code--modeling_own.OwnModel"}, "code of another repository"),
        ({"AutoModel": "modeling_gone.OwnModel"}, "modeling_gone.py, which is not there"),
        ({"AutoModel": None}, "names no code for AutoConfig and AutoModel"),
    ],
)
def test_code_that_no_commit_pins_is_refused_before_it_runs(tmp_path, auto_map, reason):
    from pipeline.encoders.architecture.modules import read_chain

    with pytest.raises(ModelError, match=reason):
        read_chain("owner/tiny", write_own(tmp_path, **auto_map), trusted=True)
