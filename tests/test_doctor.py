"""Each check of `embatch doctor`, made to fail for real, and a healthy machine with the demo job."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from pipeline.config import parse_job
from pipeline.doctor import diagnose, job, machine
from pipeline.storage import open_store


def codes(findings):
    return {found.check: found.exit_code for found in findings}


@pytest.fixture
def of_input(job):
    """Makes a job that reads something else."""
    return lambda **keys: parse_job({**job, "input": keys})


@pytest.fixture
def mounted(tmp_path):
    """Mount tiny file systems; skips where that is not allowed."""
    folders = []

    def mount(options):
        folder = tmp_path / f"disk-{len(folders)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a tmpfs")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install a package of our own that asks for what is not there."""
    folder = tmp_path / "site/asker-1.0.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", "Name: asker", "Version: 1.0", "Requires-Python: >=99"]
    asked = ["ray==1.0", "not-there-at-all>=1", "numpy", "not-there-either; extra == 'test'"]
    (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {line}" for line in asked)]) + "\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    return "asker"


def test_installed_versions_are_what_the_project_asks_for():
    assert [(found.check, found.level) for found in machine.versions()] == [
        (name, "ok") for name in ("python", "ray", "torch", "transformers")
    ]


def test_missing_and_wrong_versions_are_errors_with_the_command_that_mends_them(distribution):
    found = list(machine.versions(distribution))
    assert codes(found) == {"python": 2, "ray": 2, "not-there-at-all": 2}
    assert found[1].message.endswith("is installed; ==1.0 is asked for")
    assert found[1].remedy.startswith("pip install 'ray==1.0'")
    assert found[2].message == "not-there-at-all: is not installed; >=1 is asked for"


def test_a_disk_that_has_no_room_is_an_error(mounted):
    found = machine.disk("model cache", mounted("size=1m") / "models/not/there/yet", "free some space")
    assert (found.level, found.exit_code, found.remedy) == ("error", 9, "free some space")


def test_a_disk_with_little_room_is_a_warning(mounted):
    assert machine.disk("model cache", mounted("size=1g"), "free some space").level == "warning"


def test_shared_memory_that_is_too_small_is_a_warning(mounted, tmp_path):
    small = machine.shared_memory(1 << 30, mounted("size=1m"))
    assert small.level == "warning"
    assert "docker run --shm-size=1024m" in small.remedy
    assert machine.shared_memory(1 << 30, tmp_path / "none").level == "warning"


def test_a_cache_without_a_home_is_an_error(monkeypatch):
    monkeypatch.delenv("EMBATCH_CACHE", raising=False)

    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    assert codes(machine.disks())["model cache"] == 2


def test_a_good_output_gets_the_probe_and_nothing_else(output_uri, store):
    assert [found.level for found in job.output(output_uri)] == ["ok", "ok"]
    assert [stored.key for stored in store.list("")] == ["_job/probe"]


def test_a_read_only_output_is_an_error(mounted):
    (found,) = job.output(str(mounted("ro") / "out"))
    assert found.exit_code == 2
    assert "Read-only file system" in found.message


@pytest.mark.s3
def test_a_store_that_overwrites_is_an_error(faults, s3_uri):
    faults.inject("strip", "PUT", "_job/probe", times=math.inf)
    (found,) = job.output(s3_uri)
    assert found.exit_code == 4
    assert "ignores create-only writes" in found.message


@pytest.mark.s3
def test_a_bucket_that_is_not_there_is_an_error(faults):
    (found,) = job.output("s3://not-a-bucket-of-anyone/out")
    assert (found.exit_code, found.message) == (2, "output.uri: no such bucket: 'not-a-bucket-of-anyone'")


@pytest.mark.s3
@pytest.mark.parametrize(
    ("ahead_s", "level", "exit_code"), [(0, "ok", 0), (-120, "warning", 0), (120, "warning", 0), (1200, "error", 9)]
)
def test_a_clock_is_compared_with_the_stores(s3_uri, ahead_s, level, exit_code):
    found = job.clock(open_store(s3_uri), datetime.now(UTC) + timedelta(seconds=ahead_s))
    assert (found.level, found.exit_code) == (level, exit_code)


def test_an_input_that_cannot_be_listed_is_an_error(of_input, tmp_path):
    found = job.source(of_input(uri=str(tmp_path / "nowhere")))
    assert found.exit_code == 5
    assert "no such file or folder" in found.message


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz", "c.parquet"])
def test_a_column_that_is_not_there_is_an_error_as_in_a_run(of_input, corpus, name):
    found = job.source(of_input(uri=str(corpus / name), text="txt"))
    assert (found.level, found.exit_code) == ("error", 2)
    assert f"input.text: no such column in '{name}'; did you mean 'text'?" in found.message


def test_files_of_other_formats_are_told(of_input, corpus):
    (corpus / "README.md").write_text("about")
    found = job.source(of_input(uri=str(corpus)))
    assert found.level == "ok"
    assert re.match(r"3 files, \d+\.\d KiB at ", found.message)
    assert "; the columns that the job names are there; 1 left out, for" in found.message
    assert "1 left out, for another format or as a link to a folder: 'README.md'" in found.message


def test_a_model_that_does_not_exist_is_an_error(job):
    found = codes(diagnose(parse_job({**job, "encoder": {"model": "./models/none"}})))
    assert (found["device"], found["model"]) == (0, 6)


def test_a_device_that_is_not_there_is_an_error(job):
    found = codes(diagnose(parse_job({**job, "cluster": {"address": "local", "device": "cuda"}})))
    assert found["device"] == 6
    assert "model" not in found


def test_the_command_tells_all_and_ends_with_the_first_error(job, embatch, tmp_path):
    job["input"]["uri"], job["encoder"]["model"] = str(tmp_path / "nowhere"), "./models/none"
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    done = embatch("doctor", str(tmp_path / "job.yaml"), "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["exit_code"]) == (5, 5)
    found = {line["check"]: line for line in said["findings"]}
    assert (found["input"]["exit_code"], found["output"]["exit_code"], found["model"]["exit_code"]) == (5, 0, 6)
    assert all(line["remedy"] for line in said["findings"] if line["level"] != "ok")


@pytest.mark.model
def test_the_demo_is_healthy(embatch, tmp_path):
    done = embatch("doctor", "jobs/demo/job.yaml", "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout
    assert "0 errors" in done.stderr
    assert "384 dimensions, float32 on cpu" in done.stdout or "bfloat16 on cpu" in done.stdout


def test_without_a_job_only_the_machine_is_looked_at(embatch):
    done = embatch("doctor", "--json")
    checks = {line["check"] for line in json.loads(done.stdout)["findings"]}
    assert {"python", "device", "object store", "open files"} < checks
    assert checks.isdisjoint({"input", "output", "model"})


def test_a_process_that_may_open_few_files_is_an_error():
    code = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 64)); from pipeline.doctor import machine; "
    code += "print(machine.open_files())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ulimit -n: 64 open files are too few" in done.stdout
    assert "exit_code=2" in done.stdout


def test_a_folder_of_something_else_is_an_error_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (found,) = job.output(str(tmp_path))
    assert (found.exit_code, "notes.txt" in found.message) == (4, True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
