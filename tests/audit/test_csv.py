"""The audit reads CSV by itself: an output of it stands, and what its source does not say is found."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_outputs import Made, embed, job, rebuild, replace_column

from pipeline.plan import Plan

HEADER = b"\xef\xbb\xbfid,text,section,year\r\n"
DEAD = {
    "EMPTY": [b"", b"1, ,s,1", b'1,"",s,1'],
    "BAD_CSV": [b"1,a,s", b"1,a,s,1,", b'1,"a"b,s,1', b"1,a\rb,s,1", b"1,a\0,s,1"],
    "BAD_UTF8": [b"1,\xff,s,1"],
    "BAD_VALUE": [b"1,a,s,late"],
    "TOO_LARGE": [b"1," + b"x" * 301 + b",s,1", b"1,a," + b"y" * 1300 + b",1", b'1,"' + b"y\n" * 700 + b'",s,1'],
}


def record(number: int) -> bytes:
    return b'row-%d,"the ""text"",\r\nof row %d",s%d,%s' % (
        number,
        number,
        number % 3,
        b"%d" % number * (number % 5 > 0),
    )


def records(first: int, count: int) -> list[bytes]:
    return [record(number) for number in range(first, first + count)]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Six units, the first two of `a.csv`, whose 14 dead letters stand first."""
    folder = tmp_path_factory.mktemp("csv")
    corpus = folder / "corpus"
    corpus.mkdir()
    odd = [line for several in DEAD.values() for line in several]
    (corpus / "a.csv").write_bytes(HEADER + b"\r\n".join([*odd, *records(0, 24), b'1,"never closed']))
    (corpus / "b.csv.gz").write_bytes(gzip.compress(HEADER + b"\n".join(records(100, 45))))
    tabs = b"\n".join(b"t%d\tthe text %d\ts\t" % (number, number) for number in range(5))
    (corpus / "c.tsv").write_bytes(b"id\ttext\tsection\tyear\n" + tabs)
    return Made(corpus=corpus, output=folder / "output", plan=embed(job(corpus, folder / "output")))


@pytest.fixture
def made(pristine: Made, tmp_path: Path) -> Made:
    shutil.copytree(pristine.corpus, tmp_path / "corpus")
    shutil.copytree(pristine.output, tmp_path / "output")
    return Made(corpus=tmp_path / "corpus", output=tmp_path / "output", plan=pristine.plan)


def groups(plan: Plan) -> list[tuple[str, int, int]]:
    return [(unit.slices[0].source.path, unit.rows, unit.group) for unit in plan.units]


def test_accepts_what_was_made_of_csv(pristine):
    dead = len([line for several in DEAD.values() for line in several])
    assert groups(pristine.plan) == [
        ("a.csv", 20, 0),
        ("a.csv", dead + 5, 1),
        ("b.csv.gz", 20, 2),
        ("b.csv.gz", 20, 2),
        ("b.csv.gz", 5, 2),
        ("c.tsv", 5, 3),
    ]
    report = pristine.verify()
    assert report.findings == ()
    assert {code: report.dead_by_code[code] for code in DEAD} == {
        code: len(lines) + (code == "BAD_CSV") for code, lines in DEAD.items()
    }


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (b"row-12,", b"row-!!,", "a.csv row 25 has id 'row-12', its source 'row-!!'"),
        (b"of row 12", b"of row !!", "a.csv row 25 has a vector that is not of its text"),
        (b'of row 12",s0,12', b'of row 12",s0,21', "a.csv row 25 has year 12, its source 21"),
        (b'of row 12",s0,', b'of row 12"s,0,', "a.csv row 25 is embedded, but its source is BAD_CSV"),
        (b'of row 12",s0,12', b'of row 12",s0,,2', "a.csv row 25 is embedded, but its source is BAD_CSV"),
        (b'1,"a"b,s,1', b'1,"ab",s,1', "a.csv row 5 is dead as BAD_CSV, but its source is a row that can be embedded"),
    ],
)
def test_finds_a_row_that_is_not_what_the_source_says(made, old, new, finding):
    path = made.corpus / "a.csv"
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    assert made.verify().findings == (f"{made.name(int(finding.split()[2]) // 20)}: {finding}",)


def test_finds_a_changed_value_of_a_shard(made):
    rebuild(made, 5, lambda table: replace_column(table, "id", pa.array([f"t{row}" for row in (0, 1, 2, 4, 3)])))
    assert made.verify().findings[0].startswith(f"{made.name(5)}: c.tsv row 3 has id 't4', its source 't3'")


def test_finds_records_that_were_joined(made):
    path = made.corpus / "c.tsv"
    path.write_bytes(path.read_bytes().replace(b"\nt4\t", b" t4\t"))
    short, joined = made.verify().findings
    assert short == "source file c.tsv: ends at row 4, more are planned"
    assert joined == f"{made.name(5)}: c.tsv row 3 is embedded, but its source is BAD_CSV"


def test_rows_have_their_texts_and_places(pristine):
    table = pq.ParquetFile(pristine.shard(2)).read()
    assert table["id"].to_pylist() == [f"row-{number}" for number in range(100, 120)]
    assert table["source_row"].to_pylist() == list(range(20))
    assert table["year"].to_pylist() == [number if number % 5 else None for number in range(100, 120)]
