"""The documentation names what there is, and its commands and programs work as printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from samples import ROOT

BLOCK = re.compile(r"^```(bash|python) exec\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("infra/**/*.md")]
)
LINK = re.compile(r"\]\((?!http|#)([^)#]+)")


@pytest.mark.ray
@pytest.mark.model
def test_quickstart_and_what_follows_run_as_printed(tmp_path):
    blocks = BLOCK.findall((ROOT / "docs/quickstart.md").read_text())
    session = BLOCK.findall((ROOT / "docs/using-vectors.md").read_text())
    assert (len(blocks) >= 5, len(session) >= 6, {language for language, _ in session}) == (True, True, {"python"})
    blocks.append(("python", "".join(text for _, text in session)))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for language, text in blocks:
        command = ["bash", "-euc", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    assert [link for link in LINK.findall((ROOT / page).read_text()) if not (folder / link).exists()] == []


def test_job_file_page_is_current():
    from jobs.reference import reference

    assert (ROOT / "docs/job-file.md").read_text() == reference(), "run `make docs`"


def test_published_schema_is_the_current_one():
    from jobs.verbs.config import schema_text

    assert (ROOT / "jobs/schema/job-v1.schema.json").read_text() == schema_text(), "run `make docs`"


def test_docs_name_every_key_of_the_job_file():
    schema = json.loads((ROOT / "jobs/schema/job-v1.schema.json").read_text())
    text = (ROOT / "docs/job-file.md").read_text()
    sections = {"": schema} | {
        name: schema["$defs"][value["$ref"].rpartition("/")[2]]
        for name, value in schema["properties"].items()
        if "$ref" in value
    }
    keys = [f"{name}.{key}" if name else key for name, section in sections.items() for key in section["properties"]]
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_docs_name_every_verb_and_exit_code():
    from jobs.cli import app
    from pipeline.exceptions import error_classes

    text = (ROOT / "docs/command-line.md").read_text()
    verbs = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    assert [verb for verb in verbs if f"## `embatch {verb}" not in text] == []
    codes = {0} | {kind.exit_code for kind in error_classes()}
    assert [code for code in sorted(codes) if f"| {code} |" not in text] == []
