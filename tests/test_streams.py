"""A command whose streams are closed, full or read by nobody does its work and ends with its own code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from made_outputs import embed, job, lines
from samples import ROOT

Shell = Callable[[str], int]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Run a command line over a job that is complete and has a warning to say; the code of its first command."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "corpus").mkdir()
    (folder / "corpus/a.jsonl").write_bytes(lines(0, 20))
    config = job(folder / "corpus", folder / "output")
    embed(config)
    (folder / "corpus/later.jsonl").write_bytes(lines(20, 1))
    values = config.model_dump(
        mode="json", include={"input": {"uri", "keep", "max_text_bytes"}, "output": {"uri", "unit_rows"}}
    )
    (folder / "job.yaml").write_text(yaml.safe_dump({**values, "encoder": {"model": "hashing:16"}}))

    def run(line: str) -> int:
        script = f'cd {folder}; embatch() {{ "{sys.executable}" -m jobs.cli "$@"; }}; {line}; exit ${{PIPESTATUS[0]}}'
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(["bash", "-c", script], env=environment, timeout=60, check=False).returncode

    return run


@pytest.mark.parametrize("streams", [">&-", "<&- >&- 2>&-", "2>/dev/full", "2>&1 | true"])
def test_work_that_is_done_is_done(shell, streams):
    assert shell(f"embatch run job.yaml {streams}") == 0


def test_an_error_keeps_its_code(shell):
    assert shell("embatch verify nowhere --json >/dev/full 2>/dev/full") == 2


def test_a_result_that_cannot_be_written_is_an_error_of_storage(shell, tmp_path):
    assert shell(f"embatch run job.yaml >/dev/full 2>{tmp_path}/said") == 9
    said = (tmp_path / "said").read_text()
    assert "storage failed at 'standard output': No space left on device (exit 9)" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["config show job.yaml --output b\u00fcro", "verify b\u00fcro", "status b\u00fcro"])
def test_what_an_ascii_terminal_lacks_ends_no_command(shell, tmp_path, command):
    assert shell(f"ln -sfn output b\u00fcro; PYTHONIOENCODING=ascii embatch {command} >{tmp_path}/said") == 0
    assert "b\u00fcro" in (tmp_path / "said").read_text(encoding="utf-8")


def test_a_closed_stream_takes_no_file(shell, tmp_path):
    """Else what any library prints would go into the file that was opened next."""
    write = f"open('{tmp_path}/file', 'w'); import os; os.write(2, b'printed')"
    assert (
        shell(f'"{sys.executable}" -c "from jobs import streams; streams.secure(); file = {write}" <&- >&- 2>&-') == 0
    )
    assert Path(tmp_path, "file").read_text() == ""
