"""An output as the writer makes it, and copies of it that a test may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_outputs import (
    Made,
    embed,
    job,
    write_corpus,
)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("pristine")
    corpus, output = write_corpus(folder / "corpus"), folder / "output"
    return Made(corpus=corpus, output=output, plan=embed(job(corpus, output)))


@pytest.fixture
def made(pristine: Made, tmp_path: Path) -> Made:
    corpus, output = tmp_path / "corpus", tmp_path / "output"
    shutil.copytree(pristine.corpus, corpus)
    shutil.copytree(pristine.output, output)
    return Made(corpus=corpus, output=output, plan=pristine.plan)
