"""The audit names each row that is not what its source says, by file and place."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_outputs import (
    embed,
    job,
    lines,
    rebuild,
    replace_column,
    write_parquet,
)

from pipeline import shard
from pipeline.audit import verify
from pipeline.exceptions import SourceReadError, TransientStorageError


def test_finds_a_dropped_row_though_all_counts_agree(made):
    rebuild(made, 9, lambda table: table.slice(1))
    assert made.verify().findings == (f"{made.name(9)}: e.parquet row 0 is neither embedded nor dead",)


def test_finds_a_doubled_row_though_all_counts_agree(made):
    rebuild(made, 8, lambda table: table.take([0, 1, 1, 2]))
    assert made.verify().findings == (f"{made.name(8)}: d/more.jsonl row 1 is there 2 times",)


def test_finds_rows_out_of_order(made):
    rebuild(made, 8, lambda table: table.take([0, 2, 1]))
    assert made.verify().findings == (f"{made.name(8)}: d/more.jsonl row 1 comes after d/more.jsonl row 2",)


def test_finds_rows_of_another_unit(made):
    def shift(table: pa.Table) -> pa.Table:
        return replace_column(table, "source_row", pa.array([0, 1, 3]))

    rebuild(made, 8, shift)
    foreign, missing = made.verify().findings
    assert foreign == f"{made.name(8)}: embeds d/more.jsonl row 3, which is not in unit 8"
    assert missing == f"{made.name(8)}: d/more.jsonl row 2 is neither embedded nor dead"


def test_finds_a_good_row_that_was_buried(made):
    letter = shard.dead_table([("d/more.jsonl", 2, "EMPTY", "the text is empty")])
    rebuild(made, 8, lambda table: table.slice(0, 2), dead=letter)
    wrong = f"{made.name(8)}: d/more.jsonl row 2 is dead as EMPTY, but its source is a row that can be embedded"
    assert made.verify().findings == (wrong,)


def test_finds_a_dead_letter_with_the_wrong_code(made):
    rebuild(made, 10, dead=shard.dead_table([("e.parquet", 28, "TOO_LARGE", "?")]))
    wrong = f"{made.name(10)}: e.parquet row 28 is dead as TOO_LARGE, but its source is EMPTY"
    assert made.verify().findings == (wrong,)


def test_finds_dead_letters_with_other_columns(made):
    rebuild(made, 10, dead=pq.read_table(made.dead(10)).append_column("n", pa.array([1])))
    (finding,) = made.verify().findings
    assert finding.endswith(
        ".parquet have columns [source_file: string not null, source_row: int64 not null, "
        "code: string not null, reason: string not null, n: int64]"
    )


def test_finds_a_unit_that_mixes_two_versions_of_a_file(made):
    letter = shard.dead_table([("d/more.jsonl", 2, "SOURCE_CHANGED", "d/more.jsonl: size 1 -> 2")])
    rebuild(made, 8, lambda table: table.slice(0, 2), dead=letter)
    mixed = f"{made.name(8)}: 1 of d/more.jsonl rows 0 to 2 are set aside as changed, the others are not"
    assert made.verify().findings == (mixed,)


def test_finds_an_embedded_row_that_should_be_dead(made):
    def invent(table: pa.Table) -> pa.Table:
        row = replace_column(table.slice(7), "source_row", pa.array([28]))
        return pa.concat_tables([table, row]).combine_chunks()

    rebuild(made, 10, invent, dead=shard.dead_table([]))
    wrong = f"{made.name(10)}: e.parquet row 28 is embedded, but its source is EMPTY"
    assert made.verify().findings == (wrong,)


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (b'"row-20"', b'"row-!!"', "a.jsonl row 42 has id 'row-20', its source 'row-!!'"),
        (b'"year": 20}', b'"year": 99}', "a.jsonl row 42 has year 20, its source 99"),
        (b'"year": 20}', b'"year": .5}', "a.jsonl row 42 is embedded, but its source is BAD_JSON"),
        (b'"year": 20}', b'"year":2.5}', "a.jsonl row 40 or later: year cannot be int32: a number that is no int32"),
        (b"of row 20", b"of row !!", "a.jsonl row 42 has a vector that is not of its text"),
        (
            b'"text": "the text of row 20"',
            b'"text": "                  "',
            "a.jsonl row 42 is embedded, but its source is EMPTY",
        ),
    ],
)
def test_finds_a_row_that_is_not_what_the_source_says(made, old, new, finding):
    path = made.corpus / "a.jsonl"
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    assert made.verify().findings == (f"{made.name(2)}: {finding}",)


def test_finds_a_parquet_value_that_is_not_what_the_source_says(made):
    path = made.corpus / "e.parquet"
    table = pq.read_table(path)
    write_parquet(replace_column(table, "year", pa.array([300, 7, *range(302, 328), 1])), path)
    assert made.verify().findings == (f"{made.name(9)}: e.parquet row 1 has year 301, its source 7",)


def test_finds_rows_appended_to_a_source(made):
    more = b"\n" + lines(40, 1)
    with (made.corpus / "a.jsonl").open("ab") as file:
        file.write(more)
    size = made.plan.sources[0].size
    said = f"source file a.jsonl: has {size + len(more)} bytes, planned with {size}; its rows were not compared"
    assert made.verify().findings == (said,)


def test_finds_a_source_that_was_rewritten_in_place(pristine, tmp_path):
    shutil.copytree(pristine.corpus, tmp_path / "corpus")
    work = job(tmp_path / "corpus", tmp_path / "output")
    embed(work)
    assert verify(str(tmp_path / "output")).findings == ()
    path = tmp_path / "corpus/a.jsonl"
    path.write_bytes(path.read_bytes())
    (finding,) = verify(str(tmp_path / "output")).findings
    assert finding.startswith("source file a.jsonl: was rewritten since it was planned; vectors may be of other texts")
    assert verify(str(tmp_path / "output"), input_uri=str(tmp_path / "corpus")).findings == ()


@pytest.mark.s3
@pytest.mark.parametrize(
    ("variable", "value", "kind"),
    [("AWS_ACCESS_KEY_ID", None, SourceReadError), ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", TransientStorageError)],
)
@pytest.mark.usefixtures("impatient_s3")
def test_a_store_of_the_input_that_gives_nothing_is_no_damage(made, bucket, monkeypatch, variable, value, kind):
    monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    with pytest.raises(kind, match=bucket):
        verify(str(made.output), input_uri=f"s3://{bucket}/corpus/")


def test_finds_a_source_that_is_gone(made):
    (made.corpus / "b.jsonl.gz").unlink()
    assert made.verify().findings == ("source file b.jsonl.gz: is gone",)


def test_finds_a_source_with_fewer_rows_in_as_many_bytes(made):
    path = made.corpus / "d/more.jsonl"
    path.write_bytes(path.read_bytes().replace(b"}\n{", b"} {"))
    short, joined = made.verify().findings
    assert short == "source file d/more.jsonl: ends at row 1, more are planned"
    assert joined == f"{made.name(8)}: d/more.jsonl row 0 is embedded, but its source is BAD_JSON"


def test_finds_a_source_that_cannot_be_decoded(made):
    path = made.corpus / "b.jsonl.gz"
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    (finding,) = made.verify().findings
    assert finding.startswith("source file b.jsonl.gz: cannot be read: CRC check failed")
