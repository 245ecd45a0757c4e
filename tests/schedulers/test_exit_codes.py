"""What schedulers are told to do is complete, is what the documentation says, and comes true on real commands."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date

import pytest
from made_outputs import embed
from samples import ROOT, write_jsonl

from jobs.schedulers.exit_codes import ACTIONS, Action, action, should_retry
from pipeline.config import load_job
from pipeline.exceptions import error_classes

DAY = ("--ds", "2026-11-24")
TABLE = re.findall(
    r"^\| [^|]+ \| (\d+) \| (\w+)[^|]*\| ?([^|;]*?)[;|].*$", (ROOT / "docs/schedulers.md").read_text(), re.MULTILINE
)


def test_every_exit_code_has_its_action():
    assert set(ACTIONS) == {0} | {kind.exit_code for kind in error_classes()}


def test_documented_actions_are_the_ones_in_code():
    documented = {(int(code), retry == "yes") for code, retry, _ in TABLE}
    assert documented == {(code, should_retry(code)) for code in ACTIONS}
    then = {(int(code), said.strip()) for code, retry, said in TABLE if retry == "no"}
    assert then == {(code, found.value) for code, found in ACTIONS.items() if found is not Action.RETRY}


def test_documented_tests_exist():
    rows = re.findall(r"\]\(\.\./(tests/\S+\.py)\) `(\w+)`", (ROOT / "docs/schedulers.md").read_text())
    assert len(rows) == 17
    assert [row for row in rows if f"def {row[1]}(" not in (ROOT / row[0]).read_text()] == []


def test_command_line_page_has_the_same_actions():
    page = (ROOT / "docs/command-line.md").read_text()
    for code, found in ACTIONS.items():
        assert re.search(rf"^\| {code} \| .* \| {found.value} \|$", page, re.MULTILINE), code


@pytest.mark.parametrize("code", [-9, 137, 143])
def test_a_killed_command_counts_as_interrupted(code):
    assert should_retry(code)


@pytest.mark.parametrize("code", [12, 126, 127])
def test_a_code_that_is_not_of_embatch_is_an_alert(code):
    assert action(code) is Action.ALERT


def test_actions_need_nothing_but_python():
    code = "import sys; before = set(sys.modules); import jobs.schedulers.exit_codes; print(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in re.findall(r"'([\w.]+)'", done.stdout)}
    assert "jobs" in loaded
    assert loaded <= sys.stdlib_module_names | {"jobs"}


def test_a_bug_ends_with_its_own_code():
    bug = "import jobs.cli, sys; jobs.cli.app.command('bug')(lambda: 1 / 0); sys.argv[1:] = ['bug']; jobs.cli.main()"
    done = subprocess.run([sys.executable, "-c", bug], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "internal error: ZeroDivisionError" in done.stderr


@pytest.mark.ray
def test_dead_letters_over_the_limit_end_with_their_own_code(daily_job, embatch, tmp_path):
    write_jsonl(tmp_path / "corpus/dt=2026-11-24/a.jsonl", [{"text": "fine"}, {"text": 1}])
    done = embatch("run", str(daily_job), *DAY)
    assert done.returncode == 3, done.stderr


def test_an_output_of_something_else_ends_with_its_own_code(daily_job, add_day, embatch, tmp_path):
    add_day("2026-11-24")
    write_jsonl(tmp_path / "out/2026-11-24/notes.jsonl", [{}])
    done = embatch("run", str(daily_job), *DAY)
    assert done.returncode == 4, done.stderr


def test_a_missing_model_ends_with_its_own_code(daily_job, add_day, embatch, tmp_path):
    add_day("2026-11-24")
    done = embatch("run", str(daily_job), *DAY, "--model", str(tmp_path / "none"))
    assert done.returncode == 6, done.stderr


@pytest.mark.slow  # every try there is of a store, with its pauses
def test_a_store_that_does_not_answer_ends_with_its_own_code(daily_job, add_day, embatch):
    add_day("2026-11-24")
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    done = embatch("run", str(daily_job), *DAY, "--output", "s3://bucket/{ds}", **nobody)
    assert done.returncode == 9, done.stderr


@pytest.mark.ray
def test_files_without_rows_end_with_their_own_code_when_asked(daily_job, embatch, tmp_path):
    write_jsonl(tmp_path / "corpus/dt=2026-11-24/a.jsonl", [])
    done = embatch("run", str(daily_job), *DAY, "--fail-on-empty")
    assert done.returncode == 10, done.stderr


def test_a_damaged_output_ends_with_its_own_code(daily_job, add_day, embatch, tmp_path):
    add_day("2026-11-24")
    embed(load_job(daily_job, day=date(2026, 11, 24)))
    assert embatch("verify", str(tmp_path / "out/2026-11-24")).returncode == 0
    shard, *_ = (tmp_path / "out/2026-11-24/data").iterdir()
    shard.write_bytes(shard.read_bytes()[:-1])
    done = embatch("verify", str(tmp_path / "out/2026-11-24"))
    assert done.returncode == 11, done.stderr
