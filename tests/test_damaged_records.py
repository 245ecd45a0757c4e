"""Files below `_job/` with bytes that flipped or are gone: every command that reads says so, and none breaks."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from made_outputs import Made, embed, lines
from made_outputs import job as hashing_job

from jobs.verbs.status import _lines
from pipeline.audit import verify
from pipeline.checkpoint import claims
from pipeline.checkpoint.receipts import ReceiptLog
from pipeline.clean import clean
from pipeline.config import JobConfig, parse_job
from pipeline.dry_run import preview
from pipeline.embeddings import read_embeddings
from pipeline.exceptions import DamagedOutputError, PipelineError
from pipeline.fingerprint import canonical_json
from pipeline.job import run
from pipeline.plan.document import HEAD
from pipeline.shard import describe
from pipeline.status import status, wait_for_plan
from pipeline.storage import open_store
from pipeline.tracking import Tracker

DAMAGES = 4
"""Of each file."""


def job(folder: Path, output: Path) -> JobConfig:
    values = hashing_job(folder / "corpus", output).model_dump(mode="json")
    values["output"]["vectors"], values["limits"]["max_dead_rate"] = "int8", 1.0
    return parse_job(values)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """All that a run leaves: claim, heartbeat and report too, and cached receipts."""
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "corpus").mkdir()
    (folder / "corpus/a.jsonl").write_bytes(lines(0, 59) + b'{"text": 5}\n')
    config = job(folder, folder / "output")
    plan = embed(config)
    made, store = Made(corpus=folder / "corpus", output=folder / "output", plan=plan), open_store(config.output.uri)
    log = ReceiptLog(store, run=1, batch=100)
    for unit in plan.units:
        log.add(describe(made.name(unit.number), made.shard(unit.number).read_bytes()))
    log.flush()
    shutil.rmtree(made.output / "_job/manifest")
    (made.output / "_job/manifest.json").unlink()
    assert run(config).complete
    store.replace(f"{claims.FOLDER}/000001.hb", canonical_json({"beat": 3, **asdict(Tracker(plan, {}).progress())}))
    return made


@pytest.fixture
def made(pristine: Made, tmp_path: Path) -> Made:
    shutil.copytree(pristine.output, tmp_path / "output")
    return Made(corpus=pristine.corpus, output=tmp_path / "output", plan=pristine.plan)


def readers(made: Made) -> dict[str, Callable[[], Any]]:
    uri, config = str(made.output), job(made.corpus.parent, made.output)
    return {
        "verify": lambda: verify(uri),
        "status": lambda: _lines(status(uri)),
        "wait": lambda: wait_for_plan(uri, 0.0),
        "clean": lambda: clean(uri, dry_run=True),
        "read": lambda: list(read_embeddings(uri, decode=True)),
        "read what is there": lambda: list(read_embeddings(uri, allow_partial=True)),
        "plan": lambda: preview(config),
        "run": lambda: run(config),
    }


def damaged(data: bytes, seed: str, count: int) -> Iterator[bytes]:
    """Yield bytes of which some bits flipped, or the end is missing."""
    draw = random.Random(seed)
    yield b""
    for _ in range(count):
        found = bytearray(data[: draw.randrange(len(data))] if draw.random() < 0.2 else data)
        for _ in range(draw.choice((0, 1, 1, 3)) if len(found) < len(data) else draw.choice((1, 1, 2, 5))):
            if found:
                found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
        yield bytes(found)


def names(output: Path) -> list[str]:
    return sorted(path.relative_to(output).as_posix() for path in (output / "_job").rglob("*") if path.is_file())


def test_damage_anywhere_below_job_breaks_no_command(made):
    for name in names(made.output):
        data = (made.output / name).read_bytes()
        for spoilt in damaged(data, name, DAMAGES) if data else ():
            (made.output / name).write_bytes(spoilt)
            for command in readers(made).values():
                with suppress(PipelineError):
                    command()
        (made.output / name).write_bytes(data)
    assert made.verify().findings == ()


@pytest.mark.parametrize("spoilt", [b"", b"\xff", b'{"format":\xff', lambda data: data[:300]])
def test_a_damaged_plan_is_damage_to_every_command(made, spoilt):
    head = made.output / HEAD
    head.write_bytes(spoilt(head.read_bytes()) if callable(spoilt) else spoilt)
    commands = readers(made)
    assert [finding for finding in commands.pop("verify")().findings if HEAD in finding]
    for name in ("read", "read what is there"):
        commands.pop(name)()  # they go by the manifest
    for command in commands.values():
        with pytest.raises(DamagedOutputError, match=HEAD):
            command()
    (made.output / "_job/manifest.json").unlink()
    with pytest.raises(DamagedOutputError, match=HEAD):
        list(read_embeddings(str(made.output), allow_partial=True))
