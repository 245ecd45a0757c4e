"""What `clean` removes is dead, and what may still be named stays."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_outputs import Made, embed, job, write_corpus

from pipeline.checkpoint import claims, commits, receipts
from pipeline.clean import clean
from pipeline.exceptions import ConfigError, OutputOwnedError
from pipeline.storage import open_store

ORPHAN = "0123456789ab.parquet"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("clean")
    corpus = write_corpus(folder / "corpus")
    return Made(corpus=corpus, output=folder / "output", plan=embed(job(corpus, folder / "output")))


@pytest.fixture
def made(pristine: Made, tmp_path: Path) -> Made:
    shutil.copytree(pristine.output, tmp_path / "output")
    return Made(corpus=pristine.corpus, output=tmp_path / "output", plan=pristine.plan)


def leave(made: Made, *keys: str) -> set[str]:
    for key in keys:
        (made.output / key).parent.mkdir(parents=True, exist_ok=True)
        (made.output / key).write_bytes(b"left over")
    return set(keys)


def cleaned(made: Made) -> set[str]:
    """What a dry run names, which must be what then goes."""
    before = {path for path in made.output.rglob("*") if path.is_file()}
    named = {stored.key for stored in clean(str(made.output), dry_run=True)}
    assert {path for path in made.output.rglob("*") if path.is_file()} == before
    assert {stored.key for stored in clean(str(made.output))} == named
    gone = before - {path for path in made.output.rglob("*") if path.is_file()}
    assert {path.relative_to(made.output).as_posix() for path in gone} == named
    return named


def test_a_sound_output_has_nothing_to_remove(made):
    assert cleaned(made) == set()


def test_leftovers_go_and_the_output_stays_sound(made):
    left = leave(
        made, "_job/tmp/part-00000000-x.parquet.abc", f"_job/plan/part-00000-{ORPHAN}", f"_dead/part-00000000-{ORPHAN}"
    )
    assert cleaned(made) == left
    assert made.verify().findings == ()


def test_dead_letters_of_a_unit_without_a_shard_stay(made):
    """An attempt may have written them that is about to commit."""
    made.shard(0).unlink()
    leave(made, f"_dead/part-00000000-{ORPHAN}")
    assert cleaned(made) == set()


def test_the_shard_says_what_is_dead_and_not_a_receipt_of_one_before_it(made):
    store = open_store(str(made.output))
    receipt = commits.read_receipt(store, made.name(0), made.plan.plan_id)
    log = receipts.ReceiptLog(store, run=1, batch=1)
    log.add(replace(receipt, dead_key=f"_dead/part-00000000-{ORPHAN}"))
    leave(made, f"_dead/part-00000000-{ORPHAN}")
    clean(str(made.output))
    assert made.verify().findings == ()


def test_nothing_goes_while_a_run_is_alive(made):
    leave(made, "_job/tmp/x.abc")
    claim = claims.acquire(open_store(str(made.output)))
    try:
        with pytest.raises(OutputOwnedError):
            clean(str(made.output))
        assert (made.output / "_job/tmp/x.abc").exists()
    finally:
        claim.release({})


def test_a_folder_that_is_no_output_is_left_alone(tmp_path):
    (tmp_path / "_job/tmp").mkdir(parents=True)
    (tmp_path / "_job/tmp/precious").write_bytes(b"")
    with pytest.raises(ConfigError, match="holds no embatch output"):
        clean(str(tmp_path))
    assert (tmp_path / "_job/tmp/precious").exists()
