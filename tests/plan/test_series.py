"""A series: each output takes the files that none before it has planned, whatever runs at the same time."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import made_outputs
import pyarrow as pa
import pytest

from pipeline import plan as plans
from pipeline import planning
from pipeline.audit import verify_series
from pipeline.config import JobConfig, parse_job
from pipeline.dry_run import preview
from pipeline.embeddings import read_embeddings
from pipeline.exceptions import (
    ConfigError,
    DamagedOutputError,
    InterruptedRunError,
    PlanChangedError,
    SeriesOrderError,
    SourceChangedError,
)
from pipeline.plan import Plan
from pipeline.status import read_series
from pipeline.storage import open_store


class Corpus:
    """A growing input and its series, in a folder or on S3 for the outputs."""

    def __init__(self, root: Path, series: str | None = None) -> None:
        self.input = root / "corpus"
        self.input.mkdir(parents=True)
        self.series = series or str(root / "series")

    def add(self, *names: str, rows: int = 3) -> None:
        for name in names:
            (self.input / name).write_bytes(made_outputs.lines(100 * (1 + ord(name[0]) - ord("a")), rows))

    def job(self, day: str, **keys: Any) -> JobConfig:
        output = {"series": self.series, **keys.pop("output", {})}
        return made_outputs.job(self.input, f"{self.series}/{day}", output=output, **keys)

    def embed(self, day: str, **keys: Any) -> Plan:
        config = self.job(day, **keys)
        return made_outputs.embed(config, planning.make(config, joining=True))

    def entry(self, number: int) -> Path:
        return Path(self.series) / f"_series/{number:06d}.json"


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    made = Corpus(tmp_path)
    made.add("a.jsonl", "b.jsonl")
    return made


def files(plan: Plan) -> list[str]:
    return [source.path for source in plan.sources]


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_each_output_takes_what_is_new(tmp_path, where, request):
    corpus = Corpus(tmp_path, request.getfixturevalue("s3_uri") + "/series" if where == "s3" else None)
    corpus.add("a.jsonl", "b.jsonl")
    assert files(corpus.embed("day=1")) == ["a.jsonl", "b.jsonl"]
    corpus.add("aa.jsonl", "c.jsonl")
    assert files(planning.make(corpus.job("day=2"))) == ["aa.jsonl", "c.jsonl"]
    assert preview(corpus.job("day=2")).elsewhere == 2
    assert plans.outputs(open_store(corpus.series)) == ["day=1"]  # a look takes no place
    assert files(corpus.embed("day=2")) == ["aa.jsonl", "c.jsonl"]
    report = verify_series(corpus.series)
    assert report.findings == ()
    assert {name: found.rows for name, found in report.outputs.items()} == {"day=1": 6, "day=2": 6}
    found = pa.concat_tables(
        table.replace_schema_metadata() for table in read_embeddings(corpus.series, ["source_file"])
    )
    assert found["source_file"].to_pylist() == [f"{name}.jsonl" for name in ("a", "b", "aa", "c") for _ in range(3)]


def test_nothing_new_is_an_output_without_rows(corpus):
    first = corpus.embed("1", output={"vectors": "binary"})
    second = corpus.embed("2", output={"vectors": "binary"})
    assert (second.units, second.schema) == ([], first.schema)
    assert verify_series(corpus.series).findings == ()
    assert [len(table) for table in read_embeddings(corpus.series)] == [6]
    corpus.add("c.jsonl")
    assert files(corpus.embed("3", output={"vectors": "binary"})) == ["c.jsonl"]


def test_an_output_that_is_planned_keeps_to_its_plan(corpus):
    plan = corpus.embed("1")
    corpus.add("c.jsonl")
    listing = planning.CorpusFiles(str(corpus.input)).discover()
    drift = planning.refuse_changes(corpus.job("1"), plan, "out", listing)
    assert (drift.added, drift.changed) == ([], {})  # what came later is for the next output


def test_a_place_that_was_taken_before_a_crash_is_kept(corpus):
    plans.read_taken(corpus.job("1"), joining=True)
    corpus.add("c.jsonl")
    assert files(corpus.embed("1")) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert plans.outputs(open_store(corpus.series)) == ["1"]


def test_an_output_without_a_plan_has_to_be_planned_first(corpus):
    plans.read_taken(corpus.job("1"), joining=True)
    with pytest.raises(
        SeriesOrderError, match=r"series/1 of the same series was begun .* delete .*/_series/000001\.json"
    ):
        planning.make(corpus.job("2"), joining=True)
    assert plans.outputs(open_store(corpus.series)) == ["1"]
    assert verify_series(corpus.series).findings == ("1: has no plan yet",)
    assert read_series(corpus.series) == {"1": None}
    corpus.entry(1).unlink()
    assert files(corpus.embed("2")) == ["a.jsonl", "b.jsonl"]


def test_an_output_that_was_deleted_takes_back_its_own_and_nothing_of_others(corpus):
    corpus.embed("1")
    corpus.add("c.jsonl")
    corpus.embed("2")
    corpus.add("d.jsonl")
    shutil.rmtree(Path(corpus.series) / "1")
    with pytest.raises(SeriesOrderError, match="series/1 of the same series"):
        planning.make(corpus.job("3"))
    assert files(corpus.embed("1")) == ["a.jsonl", "b.jsonl", "d.jsonl"]
    assert files(corpus.embed("3")) == []
    assert verify_series(corpus.series).findings == ()


def test_of_many_at_once_each_file_is_in_one_plan(corpus):
    corpus.add(*(f"{letter}.jsonl" for letter in "cdefgh"))

    def plan(day: int) -> str:
        config = corpus.job(str(day))
        try:
            made = planning.make(config, joining=True)
        except SeriesOrderError:
            return "refused"
        plans.publish(open_store(config.output.uri), made)
        return "planned"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(plan, range(8)))
    assert "planned" in outcomes
    names = plans.outputs(open_store(corpus.series))
    assert len(names) == outcomes.count("planned")
    planned = [path for name in names for path in files(plans.require(open_store(f"{corpus.series}/{name}")))]
    assert sorted(planned) == sorted(path.name for path in corpus.input.iterdir())


def test_a_file_that_was_rewritten_is_refused_or_left_out(corpus):
    corpus.embed("1")
    corpus.add("a.jsonl", rows=4)
    corpus.add("c.jsonl")
    with pytest.raises(SourceChangedError, match=r"a\.jsonl: size \d+ -> \d+, and 1 of this series has it"):
        planning.make(corpus.job("2"))
    told: list[str] = []
    assert files(planning.make(corpus.job("2"), skip_changed=True, warn=told.append)) == ["c.jsonl"]
    assert told[0].startswith("1 file left out, planned before and rewritten since: a.jsonl: size")


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"encoder": {"model": "hashing:8"}}, 'encoder.model: "hashing:16" -> "hashing:8"'),
        ({"input": {"text": "section"}}, 'input.text: "text" -> "section"'),
        ({"output": {"vectors": "float16"}}, 'output.vectors: absent -> "float16"'),
    ],
)
def test_another_job_does_not_enter_the_series(corpus, keys, line):
    corpus.embed("1")
    corpus.add("c.jsonl")
    with pytest.raises(PlanChangedError, match=line):
        planning.make(corpus.job("2", **keys))


def test_other_columns_do_not_enter_the_series(tmp_path):
    corpus = Corpus(tmp_path)
    for day, kind in (("1", pa.int64()), ("2", pa.float64())):
        table = pa.table({"text": ["a text"], "year": pa.array([1], kind)})
        made_outputs.write_parquet(table, corpus.input / f"{day}.parquet")
        config = corpus.job(day, input={"keep": ["year"]})
        if day == "1":
            made_outputs.embed(config, planning.make(config, joining=True))
    with pytest.raises(PlanChangedError, match=r'columns\.year: "int64" -> "double"'):
        planning.make(config)


def test_the_series_may_move(corpus, tmp_path):
    corpus.embed("1")
    moved = Path(corpus.series).rename(tmp_path / "elsewhere")
    corpus.series = str(moved)
    corpus.add("c.jsonl")
    assert files(corpus.embed("2")) == ["c.jsonl"]
    assert verify_series(corpus.series).findings == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: entry.unlink(),
        lambda entry: entry.write_bytes(b""),
        lambda entry: entry.write_bytes(b"\xff"),
        lambda entry: entry.write_text("[1]"),
        lambda entry: entry.write_text(json.dumps({"format": 1, "output": "../elsewhere"})),
        lambda entry: entry.write_text(json.dumps({"format": 1, "output": 5})),
        lambda entry: entry.write_text(json.dumps({"format": 2, "output": "1"})),
    ],
)
def test_a_damaged_entry_is_told(corpus, damage):
    corpus.embed("1")
    corpus.embed("2")
    damage(corpus.entry(1))
    with pytest.raises(DamagedOutputError, match=r"_series/000001\.json is"):
        planning.make(corpus.job("3"))
    assert verify_series(corpus.series).findings[0].startswith("_series/000001.json is")


def test_the_audit_finds_damage_within_an_output_and_between_them(corpus, tmp_path):
    corpus.embed("1")
    other = Corpus(tmp_path / "other")
    other.add("b.jsonl")
    foreign = other.embed("2", encoder={"model": "hashing:8"})
    assert files(foreign) == ["b.jsonl"]
    (Path(other.series) / "2").rename(Path(corpus.series) / "2")
    corpus.entry(2).write_bytes(other.entry(1).read_bytes())
    shard = next((Path(corpus.series) / "1/data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])
    found = verify_series(corpus.series, input_uri=str(corpus.input)).findings
    assert any(finding.startswith("1: data/part-00000000-") for finding in found)
    assert "2: source file b.jsonl is in 1, too" in found
    assert any("planned from another job than 1: encoder.dimension: 16 -> 8" in finding for finding in found)


def test_readers_refuse_an_output_that_is_not_complete(corpus):
    corpus.embed("1")
    corpus.add("c.jsonl")
    config = corpus.job("2")
    plans.publish(open_store(config.output.uri), planning.make(config, joining=True))
    with pytest.raises(InterruptedRunError, match="series/2' is not complete"):
        list(read_embeddings(corpus.series))
    assert [len(table) for table in read_embeddings(corpus.series, allow_partial=True)] == [6]
    with pytest.raises(ConfigError, match="it is a series, so name one of the outputs below it"):
        plans.require(open_store(corpus.series))
    states = read_series(corpus.series)
    assert [found.complete for found in states.values() if found] == [True, False]


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({"output": {"uri": "elsewhere/1", "series": "vectors"}}, "output.uri"),
        ({"output": {"uri": "vectors", "series": "vectors"}}, "output.uri"),
        ({"output": {"uri": "vectors/../1", "series": "vectors"}}, "output.uri"),
        ({"output": {"uri": "vectors/_series", "series": "vectors"}}, "output.uri"),
        ({"output": {"uri": "vectors2/1", "series": "vectors"}}, "output.uri"),
        ({"output": {"uri": "vectors/1", "series": "vectors", "vectors": "int8"}}, "output.vectors"),
        ({"output": {"uri": "vectors/1", "series": "vectors"}, "input": {"uri": "c", "limit": 5}}, "input.limit"),
        ({"output": {"uri": "s3://a/1", "series": "s3://user:word@a"}}, "output.series"),
    ],
)
def test_what_a_series_cannot_hold_is_refused_by_its_key(keys, wrong):
    with pytest.raises(ConfigError) as caught:
        parse_job({"input": {"uri": "c"}, "encoder": {"model": "hashing:8"}, **keys})
    assert caught.value.key == wrong


def test_without_a_series_the_identity_is_what_it_was(corpus):
    values = made_outputs.job(corpus.input, "out").model_dump(mode="json")
    assert "series" not in planning.make(parse_job(values)).requested["output"]
