"""A run takes nothing for done that it can see is not: all units stand, and one thing is wrong. Starts no Ray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_outputs import Made, embed, lines
from made_outputs import job as hashing_job

from pipeline.audit import verify
from pipeline.clean import clean
from pipeline.config import JobConfig, parse_job
from pipeline.embeddings import read_embeddings
from pipeline.exceptions import DamagedOutputError, EmptyInputError
from pipeline.job import RunOptions, run

MANIFEST = "_job/manifest.json"


def job(corpus: Path, output: Path, **sections: dict[str, object]) -> JobConfig:
    values = hashing_job(corpus, output).model_dump(mode="json")
    changed = {"limits": {"max_dead_rate": 1.0}, **sections}
    return parse_job(
        {**values, **{name: {**values[name], **changed.get(name, {})} for name in values if name in changed}}
    )


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Five units of 20 rows, the last of one file with a dead letter."""
    folder = tmp_path_factory.mktemp("tampered")
    (folder / "corpus").mkdir()
    (folder / "corpus/a.jsonl").write_bytes(lines(0, 60))
    (folder / "corpus/b.jsonl").write_bytes(lines(100, 39) + b'{"text": 5}\n')
    plan = embed(job(folder / "corpus", folder / "output"))
    return Made(corpus=folder / "corpus", output=folder / "output", plan=plan)


@pytest.fixture
def made(pristine: Made, tmp_path: Path) -> Made:
    shutil.copytree(pristine.output, tmp_path / "output")
    return Made(corpus=pristine.corpus, output=tmp_path / "output", plan=pristine.plan)


def without_manifest(made: Made) -> None:
    shutil.rmtree(made.output / "_job/manifest")
    (made.output / MANIFEST).unlink()


def lose_dead_letters(made: Made) -> None:
    shutil.rmtree(made.output / "_dead")


def copy_a_shard_over_another(made: Made) -> None:
    shutil.copy(made.shard(0), made.shard(1))


def add_a_shard_of_something_else(made: Made) -> None:
    shutil.copy(made.shard(0), made.output / "data/part-00000000-0123456789ab.parquet")


def add_a_unit_that_is_not_planned(made: Made) -> None:
    shutil.copy(made.shard(0), made.shard(77))


def forget_a_plan(made: Made) -> None:
    made.shard(1).write_bytes(made.shard(1).read_bytes().replace(b"embatch.plan_id", b"embatch.plan-id"))


def damage_the_claim(made: Made) -> None:
    (made.output / "_job/runs").mkdir()
    (made.output / "_job/runs/000001.json").write_bytes(b"")


def state(**values: object) -> Callable[[Made], None]:
    def change(made: Made) -> None:
        head = {**json.loads((made.output / MANIFEST).read_bytes()), **values}
        (made.output / MANIFEST).write_text(json.dumps({name: value for name, value in head.items() if value != ""}))

    return change


def take_the_manifest_of_a_trial(made: Made) -> None:
    trial = made.output.parent / "trial"
    embed(job(made.corpus, trial, input={"limit": 20}))
    without_manifest(made)
    shutil.copytree(trial / "_job/manifest", made.output / "_job/manifest")
    shutil.copy(trial / MANIFEST, made.output / MANIFEST)


def take_the_entries_of_a_trial(made: Made) -> None:
    plan_id = made.plan.plan_id
    take_the_manifest_of_a_trial(made)
    state(plan_id=plan_id)(made)


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (lose_dead_letters, r"_dead/part-00000004-\w+\.parquet is missing, the dead letters of data/part-00000004"),
        (copy_a_shard_over_another, r"part-00000001-\w+\.parquet holds unit 0"),
        (add_a_shard_of_something_else, r"part-00000000-0123456789ab\.parquet is not a shard of this plan"),
        (add_a_unit_that_is_not_planned, r"(part-00000077-\w+\.parquet is not a shard of this plan|holds unit 0)"),
        (forget_a_plan, r"part-00000001-\w+\.parquet does not say of which plan it is"),
        (damage_the_claim, r"_job/runs/000001\.json is not a claim"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_nothing_is_published_over_what_is_wrong(made, tamper, finding):
    without_manifest(made)
    tamper(made)
    with pytest.raises(DamagedOutputError, match=finding):
        run(job(made.corpus, made.output))
    assert not (made.output / MANIFEST).exists()


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (lose_dead_letters, r"_dead/part-00000004-\w+\.parquet is missing"),
        (add_a_shard_of_something_else, r"part-00000000-0123456789ab\.parquet is not a shard of this plan"),
        (take_the_manifest_of_a_trial, r"manifest\.json is of plan \w+, the stored plan is"),
        (take_the_entries_of_a_trial, r"manifest\.json does not list the units of the plan, each once, in order"),
        (state(parts=""), r"manifest\.json does not say parts"),
        (state(parts=5), r"manifest\.json names its parts wrongly"),
        (state(parts=[{}]), r"manifest\.json names its parts wrongly: KeyError"),
        (state(parts=[{"key": "../x", "sha256": "0"}]), r"manifest\.json names its parts wrongly"),
    ],
)
def test_a_manifest_alone_makes_no_output_complete(made, tamper, finding):
    tamper(made)
    with pytest.raises(DamagedOutputError, match=finding):
        run(job(made.corpus, made.output))


def test_dead_letters_that_were_lost_are_made_again_with_their_shard(made):
    lose_dead_letters(made)
    made.shard(4).unlink()
    embed(job(made.corpus, made.output), made.plan)
    assert run(job(made.corpus, made.output)).complete
    assert made.verify().findings == ()


@pytest.mark.parametrize(
    "name", ["_job/runs/notes.json", "_job/runs/.DS_Store", "_job/receipts/.DS_Store", "_job/tmp/.DS_Store"]
)
def test_files_of_others_beside_ours_do_no_harm(made, name):
    without_manifest(made)
    (made.output / name).parent.mkdir(exist_ok=True)
    (made.output / name).write_bytes(b"\0")
    assert run(job(made.corpus, made.output)).complete
    assert clean(str(made.output)) == []
    assert verify(str(made.output)).findings == ()


def test_a_complete_output_without_rows_fails_when_asked(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.jsonl").write_bytes(b"")
    config = job(tmp_path / "corpus", tmp_path / "output", input={"keep": []})
    embed(config)
    assert run(config).complete
    with pytest.raises(EmptyInputError):
        run(config, RunOptions(fail_on_empty=True))


def test_a_shard_that_is_gone_or_cannot_be_read_is_damage_to_readers(made):
    data = made.shard(1).read_bytes()
    made.shard(1).write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedOutputError, match=r"(?s)part-00000001.*not readable as Parquet"):
        list(read_embeddings(str(made.output)))
    made.shard(1).unlink()
    with pytest.raises(DamagedOutputError, match=r"part-00000001-\w+\.parquet is missing"):
        list(read_embeddings(str(made.output)))
