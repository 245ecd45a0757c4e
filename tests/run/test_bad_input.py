"""Each kind of bad input: the exact message and exit code, as `docs/bad-input.md` has them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import ROOT, job_over, make_rows, write_jsonl

from pipeline.audit import verify
from pipeline.config import parse_job
from pipeline.embeddings import read_embeddings
from pipeline.job import run

DOCUMENTED = (ROOT / "docs/bad-input.md").read_text()


def missing_input(job, folder):
    job["input"]["uri"] = str(folder / "nowhere")


def empty_folder(job, folder):
    (folder / "empty").mkdir()
    job["input"]["uri"] = str(folder / "empty")


def no_known_format(job, folder):
    (folder / "notes").mkdir()
    (folder / "notes/a.txt").write_text("hello")
    job["input"]["uri"] = str(folder / "notes")


def unknown_key(job, folder):
    job["input"]["txet"] = "body"


def wrong_column_in_lines(job, folder):
    job["input"] |= {"uri": str(folder / "corpus/a.jsonl"), "text": "txt"}


def wrong_column_in_parquet(job, folder):
    job["input"] |= {"uri": str(folder / "corpus/c.parquet"), "text": "txt"}


def text_that_is_no_string(job, folder):
    job["input"] |= {"uri": str(folder / "corpus/c.parquet"), "text": "year"}


def no_model(job, folder):
    del job["encoder"]["model"]


def no_such_model_folder(job, folder):
    job["encoder"]["model"] = "./models/none"


def unwritable_output(job, folder):
    (folder / "file").write_text("")
    job["output"]["uri"] = str(folder / "file/out")


def output_inside_the_input(job, folder):
    job["output"]["uri"] = str(folder / "corpus/vectors")


def corrupt_parquet(job, folder):
    (folder / "corpus/d.parquet").write_bytes(b"PAR1 this is not Parquet PAR1")


def truncated_gzip(job, folder):
    path = folder / "corpus/b.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])


def kept_columns_that_differ(job, folder):
    rows = [{"id": "x", "text": "a text", "year": "last year"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "corpus/d.parquet")


def quote_that_is_never_closed(job, folder):
    (folder / "corpus/d.csv").write_text('id,text,year\n1,"a text,2\n2,another,3\n')


def column_without_a_name(job, folder):
    (folder / "corpus/d.csv").write_text(",text,year\n0,a text,2\n")


def extension_types(job, folder):
    field = pa.field("text", pa.string(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    pq.write_table(pa.table([pa.array(["a"])], schema=pa.schema([field])), folder / "corpus/d.parquet")


REFUSED = [
    (missing_input, 5, "no such file or folder"),
    (empty_folder, 5, "the folder holds no files"),
    (no_known_format, 5, "1 file, none ending in .parquet, .pq, .jsonl, .ndjson, .csv, .tsv"),
    (unknown_key, 2, "input.txet: unknown key; did you mean 'text'?"),
    (wrong_column_in_lines, 2, "input.text: no such column in 'a.jsonl'; did you mean 'text'? it has id, text, year"),
    (
        wrong_column_in_parquet,
        2,
        "input.text: no such column in 'c.parquet'; did you mean 'text'? it has id, text, year",
    ),
    (
        text_that_is_no_string,
        5,
        "column 'year' of 'c.parquet': is int64; a text is a string column, or a template such as",
    ),
    (no_model, 2, "encoder.model: is required"),
    (no_such_model_folder, 6, "model './models/none': no such folder"),
    (unwritable_output, 2, "cannot be read: Not a directory"),
    (output_inside_the_input, 2, "lies inside the input; name a place beside it"),
    (corrupt_parquet, 5, "cannot read source file 'd.parquet': not readable as Parquet"),
    (truncated_gzip, 5, "cannot read source file 'b.jsonl.gz': damaged gzip"),
    (kept_columns_that_differ, 5, "is string, but int64 in 'c.parquet'; give its type in input.keep"),
    (
        quote_that_is_never_closed,
        5,
        "cannot read source file 'd.csv': row 0, from byte 13 on, opens a quote that is never closed and takes 2 lines",
    ),
    (column_without_a_name, 5, "column '' of 'd.csv': the header gives column 1 no name"),
    (extension_types, 5, "declares Arrow extension types"),
]


@pytest.mark.parametrize(("spoil", "code", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_refused_before_a_row_is_encoded(spoil, code, message, job, tmp_path, embatch):
    spoil(job, tmp_path)
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    done = embatch("run", str(path))
    assert message in done.stderr
    assert done.returncode == code
    assert not Path(job["output"]["uri"], "data").exists()
    assert message in DOCUMENTED, "docs/bad-input.md does not tell"


@pytest.mark.ray
def test_output_of_another_job(finished, tmp_path, embatch):
    path = tmp_path / "job.json"
    job = job_over(finished.corpus, finished.config.output.uri)
    path.write_text(json.dumps({**job, "encoder": {"model": "hashing:8"}}))
    done = embatch("run", str(path))
    assert done.returncode == 4
    assert 'encoder.model: "hashing:16" -> "hashing:8"' in done.stderr


@pytest.mark.ray
def test_bad_rows_become_dead_letters_with_place_and_reason(job, ray_cluster, tmp_path):
    lines = [
        b'{"id": 1, "text": "good"}',
        b'{"id": 2, "text": "cut off',
        b"",
        b'{"id": 4, "text": ""}',
        b'{"id": 5, "text": null}',
        b'{"id": 6, "text": "\xff\xfe"}',
        b'{"id": 7, "text": "\\ud800"}',
        b'{"id": 8, "text": 9}',
        b'{"id": 9}',
        b'["not", "an", "object"]',
        b'{"id": 11, "text": "twice", "text": "twice"}',
        b'{"id": 12, "text": "' + b"x" * 2000 + b'"}',
        b'{"id": 13.5, "text": "a number as id"}',
        b'{"id": null, "text": "no id"}',
    ]
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join(lines))
    source = {"uri": str(tmp_path / "bad.jsonl"), "max_text_bytes": 1000}
    cluster = {"address": ray_cluster, "device": "cpu", "replicas": 1}
    config = parse_job({**job, "input": source, "cluster": cluster, "limits": {"max_dead_rate": 1.0}})
    report = run(config)
    rows = pa.concat_tables(read_embeddings(config.output.uri))
    assert rows["id"].to_pylist() == ["1", "13.5", None]
    (path,) = Path(config.output.uri, "_dead").glob("*.parquet")
    dead = pq.read_table(path).to_pylist()
    assert [(letter["source_row"], letter["code"]) for letter in dead] == [
        (1, "BAD_JSON"),
        (2, "EMPTY"),
        (3, "EMPTY"),
        (4, "EMPTY"),
        (5, "BAD_UTF8"),
        (6, "BAD_UTF8"),
        (7, "BAD_TYPE"),
        (8, "MISSING_TEXT"),
        (9, "BAD_JSON"),
        (10, "BAD_JSON"),
        (11, "TOO_LARGE"),
    ]
    assert all(letter["reason"] and letter["source_file"] == "bad.jsonl" for letter in dead)
    assert report.totals["rows_in"] == len(lines)
    assert [letter["reason"] for letter in dead if letter["reason"] not in DOCUMENTED] == []


@pytest.mark.ray
def test_records_of_csv_become_rows_or_dead_letters(job, ray_cluster, tmp_path):
    records = [
        b"1,good,7",
        b"",
        b"3,,7",
        b"4,one field too few",
        b'5,"text ""after"" the"quote,7',
        b"6,a carriage\rreturn,7",
        b"7,a \0 character,7",
        b"8,\xff,7",
        b"9,a number,seven",
        b"10," + b"x" * 4000 + b",7",
        b'11,"a ""quoted"",\r\ntext",7',
        b'12,"open',
    ]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.csv").write_bytes(b"\xef\xbb\xbfid,text,year\r\n" + b"\r\n".join(records))
    (tmp_path / "bad/b.tsv.gz").write_bytes(gzip.compress(b"year\ttext\n\tfrom a TSV file\n"))
    source = {"uri": str(tmp_path / "bad"), "max_text_bytes": 1000, "keep": {"year": "int32"}}
    cluster = {"address": ray_cluster, "device": "cpu", "replicas": 1}
    config = parse_job({**job, "input": source, "cluster": cluster, "limits": {"max_dead_rate": 1.0}})
    report = run(config)
    rows = pa.concat_tables(read_embeddings(config.output.uri))
    assert rows.select(["id", "year", "source_file", "source_row"]).to_pylist() == [
        {"id": "1", "year": 7, "source_file": "a.csv", "source_row": 0},
        {"id": "11", "year": 7, "source_file": "a.csv", "source_row": 10},
        {"id": None, "year": None, "source_file": "b.tsv.gz", "source_row": 0},
    ]
    (path,) = Path(config.output.uri, "_dead").glob("*.parquet")
    dead = pq.read_table(path).to_pylist()
    assert [(letter["source_row"], letter["code"]) for letter in dead] == [
        (1, "EMPTY"),
        (2, "EMPTY"),
        *((row, "BAD_CSV") for row in range(3, 7)),
        (7, "BAD_UTF8"),
        (8, "BAD_VALUE"),
        (9, "TOO_LARGE"),
        (11, "BAD_CSV"),
    ]
    assert report.totals["rows_in"] == len(records) + 1
    told = [letter["reason"] for letter in dead if letter["code"] not in {"BAD_VALUE", "BAD_UTF8"}]
    assert [reason for reason in told if reason not in DOCUMENTED] == []
    assert verify(config.output.uri).findings == ()


@pytest.mark.ray
@pytest.mark.model
def test_a_ten_megabyte_text_is_truncated_and_marked(job, ray_cluster, tmp_path):
    write_jsonl(tmp_path / "long.jsonl", [*make_rows(0, 2), {"id": "long", "text": "many words " * 1_000_000}])
    config = parse_job(
        {
            "input": {"uri": str(tmp_path / "long.jsonl")},
            "encoder": {"model": "packaged:all-MiniLM-L6-v2"},
            "output": job["output"],
            "cluster": {"address": ray_cluster, "device": "cpu", "replicas": 1},
        }
    )
    assert run(config).totals["truncated"] == 1
    rows = pa.concat_tables(read_embeddings(config.output.uri)).to_pylist()
    assert [(row["id"], row["truncated"], row["n_tokens"] == 256) for row in rows] == [
        ("row-0", False, False),
        ("row-1", False, False),
        ("long", True, True),
    ]


@pytest.mark.ray
def test_a_file_cut_after_the_plan_is_noticed(config, corpus):
    from pipeline import plan as plans
    from pipeline import planning
    from pipeline.exceptions import SourceChangedError
    from pipeline.storage import open_store

    plans.publish(open_store(config.output.uri), planning.make(config))
    data = gzip.decompress((corpus / "b.jsonl.gz").read_bytes())
    (corpus / "b.jsonl.gz").write_bytes(gzip.compress(data[: len(data) // 2]))
    with pytest.raises(SourceChangedError, match=r"b\.jsonl\.gz: size"):
        run(config)
