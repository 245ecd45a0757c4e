"""Each line becomes a row or a dead letter of its own line number; its neighbours never notice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus.corpus_reading import examples, look, read, read_slices
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import InputConfig, PromptConfig
from pipeline.corpus import RowRule
from pipeline.corpus.documents import Collector
from pipeline.corpus.rows import DeadRowError
from pipeline.exceptions import ConfigError
from pipeline.records import DeadCode

GOOD = b'{"text": "good"}'


def write(folder: Path, *lines: bytes) -> Path:
    path = folder / "a.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def dumped(**record: object) -> bytes:
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "EMPTY"),
        (b" \t \r", "EMPTY"),
        (b'{"text": ""}', "EMPTY"),
        (b'{"text": " \\u3000\\n"}', "EMPTY"),
        (b'{"text": null}', "EMPTY"),
        (b'{"body": "a"}', "MISSING_TEXT"),
        (b"{}", "MISSING_TEXT"),
        (b'{"text": 5}', "BAD_TYPE"),
        (b'{"text": ["a"]}', "BAD_TYPE"),
        (b'{"text": {"a": 1}}', "BAD_TYPE"),
        (b'{"text": true}', "BAD_TYPE"),
        (b'{"text": "a"', "BAD_JSON"),
        (b'{"text": "a"} {}', "BAD_JSON"),
        (b"{'text': 'a'}", "BAD_JSON"),
        (b'["a"]', "BAD_JSON"),
        (b'"a"', "BAD_JSON"),
        (b"null", "BAD_JSON"),
        (b'{"text": "a", "text": "b"}', "BAD_JSON"),
        (b'{"text": "a", "x": {"y": 1, "y": 2}}', "BAD_JSON"),
        (b'{"text": "a", "x": NaN}', "BAD_JSON"),
        (b'{"text": "a", "x": -Infinity}', "BAD_JSON"),
        (b'{"text": "a\tb"}', "BAD_JSON"),
        (b'{"text": "a", "x": ' + b"9" * 5000 + b"}", "BAD_JSON"),
        (b'{"text": "a", "x": ' + b"[" * 100_000, "BAD_JSON"),
        (b'{"text": "a", "x": ' + b'{"x":' * 100_000, "BAD_JSON"),
        (b'\xef\xbb\xbf{"text": "a"}', "BAD_JSON"),
        ('{"text": "a"}'.encode("utf-16"), "BAD_UTF8"),
        (b'{"text": "\xff"}', "BAD_UTF8"),
        (b'{"text": "a", "x": "\xc3"}', "BAD_UTF8"),
        (b'{"text": "\xed\xa0\x80"}', "BAD_UTF8"),
        (b'{"text": "\\ud800"}', "BAD_UTF8"),
        (b'{"text": "a", "id": "\\udfff"}', "BAD_UTF8"),
        (b'{"text": "a", "id": {"\\udfff": 1}}', "BAD_UTF8"),
    ],
)
def test_line_that_cannot_be_embedded_stays_alone(tmp_path, line, code):
    found = read(write(tmp_path, GOOD, line, GOOD))
    assert found.dead == {1: code}
    assert found.documents.source_row == [0, 2]
    assert all(len(reason) <= 200 for reason in found.reasons)


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        " spaces around\n",
        "nul \0 inside",
        "ünïcode, combining e\u0301 and precomposed \u00e9",
        "שלום \u200f عالم",
        "family \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\ufeffa mark of its own",
        "\ufffe\uffff\U0010ffff",
        "line\u2028separators\u2029\x85\x0b\x0c",
        '"quoted" \\ {braces} %s',
        "\u200b",
    ],
)
def test_text_passes_through_as_it_is(tmp_path, text):
    escaped, plain = dumped(text=text, id=text), json.dumps({"text": text, "id": text}, ensure_ascii=False).encode()
    found = read(write(tmp_path, escaped, plain))
    assert found.texts == found.ids == [text, text]


def test_mark_at_the_beginning_and_carriage_returns_are_no_part_of_a_row(tmp_path):
    found = read(write(tmp_path, b'\xef\xbb\xbf{"text": "first"}\r', b'{"text": "second"}\r'))
    assert found.texts == ["first", "second"]


def test_ids_of_any_type_are_kept_as_text(tmp_path):
    ids = ["a", "a", "", 5, 2**63, -1, 1.5, True, None, [1, "é"], {"b": 1, "a": None}]
    found = read(write(tmp_path, *(dumped(text="x", id=each) for each in ids), GOOD))
    assert found.ids == [
        *("a", "a", "", "5", "9223372036854775808", "-1", "1.5", "true", None),
        *('[1, "é"]', '{"b": 1, "a": null}', None),
    ]


def test_id_column_can_be_named(tmp_path):
    found = read(write(tmp_path, dumped(text="x", id="wrong", key="right")), id="key")
    assert found.ids == ["right"]


def test_nesting_is_limited_wherever_it_stands(tmp_path):
    def nested(key: str, depth: int) -> bytes:
        return f'{{"text": "a", "{key}": {"[" * depth}{"]" * depth}}}'.encode()

    lines = [nested(key, depth) for key in ("id", "x") for depth in (1, 499, 500, 980, 5000)]
    assert read(write(tmp_path, *lines), keep=["x"]).dead == dict.fromkeys([2, 3, 4, 7, 8, 9], "BAD_JSON")


def test_line_over_the_cap_is_dead_and_the_next_one_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.corpus.jsonl.BLOCK_BYTES", 64)
    huge = dumped(text="a", other="x" * 1000)
    found = read(write(tmp_path, GOOD, huge, GOOD, huge[:-1]), max_text_bytes=100)
    assert found.dead == {1: "TOO_LARGE", 3: "TOO_LARGE"}
    assert found.texts == ["good", "good"]


@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize(("size", "dead"), [(400, {}), (401, {0: "TOO_LARGE"})])
def test_cap_of_a_line_is_exact(tmp_path, size, dead, end):
    line = dumped(text="a", other="x" * (size - len(dumped(text="a", other=""))))
    (tmp_path / "a.jsonl").write_bytes(line + end)
    assert read(tmp_path, max_text_bytes=100).dead == dead


@pytest.mark.parametrize(("text", "dead"), [("é" * 50, {}), ("é" * 50 + "a", {0: "TOO_LARGE"})])
def test_cap_of_a_text_counts_utf8_bytes(tmp_path, text, dead):
    assert read(write(tmp_path, dumped(text=text)), max_text_bytes=100).dead == dead


def test_key_repeated_in_a_hostile_line_is_found_quickly(tmp_path):
    pairs = ", ".join(f'"k{number}": 1' for number in range(200_000))
    assert read(write(tmp_path, f'{{{pairs}, "k199999": 1, "text": "a"}}'.encode(), GOOD)).dead == {0: "BAD_JSON"}


@examples(100)
@given(
    lines=st.lists(
        st.one_of(
            st.binary(max_size=20).map(lambda line: line.replace(b"\n", b" ")),
            st.dictionaries(
                st.sampled_from(["text", "id", "n", "x"]),
                st.recursive(
                    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
                    lambda child: st.lists(child, max_size=2) | st.dictionaries(st.text(max_size=2), child, max_size=2),
                    max_leaves=4,
                ),
            ).map(lambda record: json.dumps(record).encode()),
        ),
        max_size=12,
    )
)
def test_every_line_ends_as_a_row_or_a_dead_letter(tmp_path, lines):
    found = read(write(tmp_path, b'{"text": "a", "x": 1}', *lines), keep={"n": "int32", "x": "string"})
    rows = found.documents.source_row + list(found.dead)
    assert sorted(rows) == list(range(len(lines) + 1))
    assert found.documents.source_row == sorted(found.documents.source_row)
    assert len(found.documents.dead) == len(found.dead)
    assert {len(values) for values in [found.texts, found.ids, *found.keep.values()]} == {len(found.texts)}
    assert {str(code) for code in DeadCode} >= set(found.dead.values())


def test_row_numbers_do_not_depend_on_the_cut(tmp_path):
    path = write(tmp_path, GOOD, b"broken", *(dumped(text=f"row {row}") for row in range(2, 30)))
    whole, cut = read(path), read(path, rows=4)
    assert cut.documents.source_row == whole.documents.source_row
    assert cut.texts == whole.texts
    assert cut.dead == whole.dead == {1: "BAD_JSON"}


def test_slice_that_is_buried_forgets_what_was_read_of_it(tmp_path):
    collect = Collector(RowRule(InputConfig(uri=str(tmp_path))), {})
    slices = look(write(tmp_path, GOOD, b"broken", GOOD), rows=2).slices
    collect.add(0, {"text": "of the slice before"})
    collect.next_slice()
    collect.add(0, {"text": "a"})
    collect.bury_slice(slices[0], DeadRowError(DeadCode.SOURCE_CHANGED, "it changed"))
    assert collect.documents.texts == ["of the slice before"]
    assert [(letter.slice_index, letter.row) for letter in collect.documents.dead] == [(1, 0), (1, 1)]


TEMPLATE = "{title}: {body}"


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"title": "T", "body": "B"}, "T: B"),
        ({"title": None, "body": "B"}, ": B"),
        ({"title": 5, "body": 1.5}, "5: 1.5"),
        ({"title": True, "body": "{title}"}, "true: {title}"),
    ],
)
def test_template_is_filled_from_columns(tmp_path, record, text):
    assert read(write(tmp_path, dumped(**record)), text=TEMPLATE).texts == [text]


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"title": None, "body": None}, "EMPTY"),
        ({"title": "T"}, "MISSING_TEXT"),
        ({"title": ["T"], "body": "B"}, "BAD_TYPE"),
        ({"title": "\ud800", "body": "B"}, "BAD_UTF8"),
    ],
)
def test_template_that_cannot_be_filled_is_dead(tmp_path, record, code):
    assert read(write(tmp_path, dumped(title="T", body="B"), dumped(**record)), text=TEMPLATE).dead == {1: code}


@pytest.mark.parametrize("text", ["{", "{}", "{a!r}", "{a:>5}", "a}", "{{a}}", "{a"])
def test_malformed_template_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"input\.text"):
        read(write(tmp_path, GOOD), text=text)


def test_prompts_come_from_a_template_or_a_column(tmp_path):
    path = write(tmp_path, dumped(text="a", kind="query"), dumped(text="b", kind=None), dumped(text="c", kind=5))
    by_template = read(path, prompt=PromptConfig(template="Embed the {kind}: "))
    by_column = read(path, prompt=PromptConfig(column="kind"))
    assert by_template.documents.prompts == ["Embed the query: ", "", "Embed the 5: "]
    assert by_column.documents.prompts == ["query", ""]
    assert by_column.dead == {2: "BAD_TYPE"}


@pytest.mark.parametrize("keys", [{"column": "kind"}, {"template": "{kind}"}])
def test_prompts_are_of_the_vocabulary(tmp_path, keys):
    kinds = ["query: ", "passage: ", "query:", "", None]
    path = write(tmp_path, b"\n".join(json.dumps({"text": "a", "kind": kind}).encode() for kind in kinds))
    strict = read(path, prompt=PromptConfig(**keys, vocabulary=("query: ", "passage: ")))
    assert strict.documents.prompts == ["query: ", "passage: "]
    assert strict.dead == {2: "BAD_PROMPT", 3: "BAD_PROMPT", 4: "BAD_PROMPT"}
    assert strict.documents.dead[0].reason == "the prompt 'query:' is not in encoder.prompt.vocabulary"
    with_none = read(path, prompt=PromptConfig(**keys, vocabulary=("query: ", "passage: ", "")))
    assert with_none.documents.prompts == ["query: ", "passage: ", "", ""]
    assert with_none.dead == {2: "BAD_PROMPT"}


def test_prompt_template_without_a_column_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"encoder\.prompt\.template: names no column"):
        read(write(tmp_path, GOOD), prompt=PromptConfig(template="query: "))


def test_reading_a_slice_with_no_rows_gives_nothing(tmp_path):
    path = write(tmp_path)
    assert read_slices(path, look(path).slices).dead == []
