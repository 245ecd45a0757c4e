from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from pipeline.config import EncoderConfig
from pipeline.encoders import registry
from pipeline.encoders.base import EncoderSpec
from pipeline.encoders.files import pickled, staging
from pipeline.encoders.files.locating import locate, relocate
from pipeline.encoders.precision import Device
from pipeline.exceptions import ConfigError, ModelError
from tests.encoders.tiny_folder import BERT, Hub, serve_hub, write_json, write_model

CPU = Device(kind="cpu", bf16=False)
SHARDS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
PICKLES = [*SHARDS, "pytorch_model.bin.index.json", "2_Dense/pytorch_model.bin"]


class Author:
    """One model, published twice: as safetensors, and as pickles in two shards of which two tensors share memory."""

    def __init__(self, folder: Path) -> None:
        self.safe, self.pickled = write_model(folder / "safe"), write_model(folder / "pickled")
        torch.manual_seed(0)
        state = BertModel(BertConfig(**BERT), add_pooling_layer=False).state_dict()
        save_file(state, self.safe / "model.safetensors", metadata={"format": "pt"})
        (self.pickled / "model.safetensors").unlink()
        words = state["embeddings.word_embeddings.weight"]
        first = {"embeddings.word_embeddings.weight": words, "tied.weight": words, "slice": words[2:4, ::2]}
        rest = {name: tensor for name, tensor in state.items() if name not in first}
        for shard, tensors in zip(SHARDS, (first, rest), strict=True):
            torch.save(tensors, self.pickled / shard)
        weight_map = dict.fromkeys(first, SHARDS[0]) | dict.fromkeys(rest, SHARDS[1])
        write_json(self.pickled / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})
        dense = load_file(self.safe / "2_Dense/model.safetensors")
        (self.pickled / "2_Dense/model.safetensors").unlink()
        # the format of old files, which are no zip archives
        torch.save(dense, self.pickled / "2_Dense/pytorch_model.bin", _use_new_zipfile_serialization=False)
        self.words = words


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Author:
    return Author(tmp_path_factory.mktemp("author"))


@pytest.fixture(scope="module", autouse=True)
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of the node where plans are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(staging.CACHE_VARIABLE, str(tmp_path_factory.mktemp("node")))
        yield Path(os.environ[staging.CACHE_VARIABLE])


@pytest.fixture(scope="module")
def planned(author: Author) -> EncoderSpec:
    return registry.resolve(EncoderConfig(model=str(author.pickled), convert_pickle=True, dtype="float32"), CPU)


def encode(spec: EncoderSpec) -> Any:
    prepared = registry.build_preparer(spec).prepare(["row a text", "word", "a word a text row"])
    return registry.build_encoder(spec, "cpu", 1).encode(prepared)


def test_a_converted_model_gives_the_vectors_of_its_safetensors_twin(author, planned):
    twin = registry.resolve(EncoderConfig(model=str(author.safe), dtype="float32"), CPU)
    np.testing.assert_array_equal(encode(planned), encode(twin))


def test_the_plan_has_the_sha256_of_each_pickle_and_of_what_it_became(planned):
    converted = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "2_Dense/model.safetensors"]
    assert set(PICKLES) | {*converted, "model.safetensors.index.json"} <= planned.files.keys()
    assert not list(Path(planned.folder).rglob("*.bin"))


def test_tensors_that_share_memory_are_written_apart_under_both_names(author, planned):
    tensors = load_file(Path(planned.folder) / "model-00001-of-00002.safetensors")
    assert torch.equal(tensors["tied.weight"], author.words)
    assert torch.equal(tensors["embeddings.word_embeddings.weight"], author.words)
    assert torch.equal(tensors["slice"], author.words[2:4, ::2])


def test_another_node_converts_a_model_of_the_hub_to_the_same_bytes(author, planned, tmp_path):
    with serve_hub() as hub:
        commit = hub.commit(author.pickled)
        first = on_node(tmp_path / "first", hub, f"locate('owner/tiny', {commit!r}, convert_pickle=True)")
        second = on_node(tmp_path / "second", hub, f"relocate('owner/tiny', {commit!r}, {first!r})")
    assert first == second == planned.files


def on_node(node: Path, hub: Hub, call: str) -> Any:
    """Return the hashes of a folder that is found with empty caches, in a process of its own."""
    script = f"import json; from pipeline.encoders.files.locating import *; print(json.dumps({call}.hashes()))"
    places = {"HF_HOME": str(node / "hf"), staging.CACHE_VARIABLE: str(node / "embatch"), "HF_ENDPOINT": hub.url}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**os.environ, **places}, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


@contextmanager
def other_content(path: Path, content: bytes) -> Iterator[None]:
    """Change a file for the length of a block; afterwards it is as if it had never been touched."""
    before, stat = path.read_bytes(), path.stat()
    path.write_bytes(content)
    yield
    path.write_bytes(before)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_another_pickle_than_the_planned_one_is_refused(author, planned, tmp_path):
    torch.save({"linear.weight": torch.zeros(16, 16)}, tmp_path / "other.bin")
    with (
        other_content(author.pickled / "2_Dense/pytorch_model.bin", (tmp_path / "other.bin").read_bytes()),
        pytest.raises(ModelError, match=r"2_Dense/model\.safetensors, 2_Dense/pytorch_model\.bin$"),
    ):
        relocate(planned.model, planned.revision, planned.files)


def test_a_converted_file_that_was_tampered_with_is_refused(planned):
    path = Path(planned.folder) / "2_Dense/model.safetensors"
    with (
        other_content(path, path.read_bytes()[:-1] + b"!"),
        pytest.raises(ModelError, match=r"plan: 2_Dense/model\.safetensors$"),
    ):
        relocate(planned.model, planned.revision, planned.files)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, node, save):
    model, canary = write_model(tmp_path / "model"), tmp_path / "canary"
    (model / "model.safetensors").unlink()
    save({"weight": Malicious(f"touch {canary}")}, model / "pytorch_model.bin")
    before = set((node / "models").iterdir())
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is not plain tensors and was not run") as refusal:
        locate(str(model), None, convert_pickle=True)
    assert refusal.value.exit_code == 6
    assert not canary.exists()
    assert [path for path in set((node / "models").iterdir()) - before if path.is_dir()] == []


def test_the_malicious_pickle_of_these_tests_would_run(tmp_path):
    pickle.loads(pickle.dumps(Malicious(f"touch {tmp_path / 'canary'}")))
    assert (tmp_path / "canary").exists()


def test_the_converting_process_can_neither_connect_nor_start_programs(tmp_path):
    attempts = """
import os, socket, subprocess, sys
from pipeline.encoders.files import pickled
sys.addaudithook(pickled._forbid)
for attempt in (
    lambda: os.system("touch canary"),
    lambda: subprocess.run(["touch", "canary"]),
    lambda: os.posix_spawn("/usr/bin/touch", ["touch", "canary"], {}),
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: socket.getaddrinfo("example.org", 80),
):
    try:
        attempt()
    except PermissionError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", attempts], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("may not use") == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", [{"weight": torch.zeros(2), "epoch": 3}, [torch.zeros(2)]])
def test_a_pickle_that_holds_more_than_named_tensors_is_refused(state):
    with pytest.raises(ValueError, match="something else than named tensors"):
        pickled._separate(state)


@pytest.mark.parametrize("shard", [f"../../{SHARDS[0]}", "/etc/passwd", "weights.bin", 3])
def test_an_index_that_names_no_weight_files_is_refused(shard):
    with pytest.raises(ValueError, match="names no weight files"):
        pickled._converted_index({"weight_map": {"a": shard}})


@pytest.mark.parametrize("revision", [None, "main", "v1.0"])
def test_pickles_of_the_hub_are_converted_by_commit_only(revision):
    with pytest.raises(
        ConfigError, match=r"encoder\.revision: encoder\.convert_pickle takes hub models by a full commit"
    ):
        locate("owner/model", revision, convert_pickle=True)


def test_nothing_is_converted_where_safetensors_are_there(author):
    torch.save({}, author.safe / "pytorch_model.bin")
    assert locate(str(author.safe), None, convert_pickle=True).path == author.safe
