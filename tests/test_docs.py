"""The commands and programs of the documentation work as printed."""

from __future__ import annotations

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
def test_quickstart_runs_as_printed(tmp_path):
    blocks = BLOCK.findall((ROOT / "docs/quickstart.md").read_text())
    assert len(blocks) >= 5
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
