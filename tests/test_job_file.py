"""A job file is data: whatever else YAML can do is refused, in time and by name."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path

import pytest

from pipeline.config.job_file import MAX_BYTES, read_values, shown
from pipeline.exceptions import ConfigError

JOB = """\
name: trial
input:
  uri: corpus/
  keep: [a, b]
"""


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def refusal(path: Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_values(path, overrides)
    return str(caught.value)


def refusal_of(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    return message


def test_file_is_read_as_it_stands(job_file):
    assert read_values(job_file) == {"name": "trial", "input": {"uri": "corpus/", "keep": ["a", "b"]}}


def test_mark_at_the_beginning_and_merge_keys_are_fine(job_file):
    job_file.write_bytes(b"\xef\xbb\xbfbase: &base {uri: a, text: b}\ninput:\n  <<: *base\n  text: c\n")
    assert read_values(job_file)["input"] == {"uri": "a", "text": "c"}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch pwned']",
        "a: !!python/object:pipeline.config.JobConfig {}",
        "a: !!python/name:os.system",
        "a: !!python/tuple [1]",
        "!!python/module:os x",
    ],
)
def test_python_objects_are_refused(job_file, text):
    assert "could not determine a constructor for the tag" in refusal_of(job_file, text)
    assert not Path("pwned").exists()


def test_alias_bomb_is_refused_at_once(job_file):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 12)]
    started = time.monotonic()
    assert "more than 16 aliases" in refusal_of(job_file, "\n".join(levels))
    assert time.monotonic() - started < 5


def test_a_few_aliases_are_fine(job_file):
    job_file.write_text("a: &a 1\n" + "".join(f"b{number}: *a\n" for number in range(16)))
    assert read_values(job_file)["b15"] == 1


def test_file_over_the_cap_is_not_read(job_file):
    assert f"a job file of {MAX_BYTES + 1} bytes; at most {MAX_BYTES} are read" in refusal_of(
        job_file, "#" * (MAX_BYTES + 1)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "duplicate key 'a' in line 3"),
        ("input:\n  uri: a\n  text: b\n  uri: c", "duplicate key 'uri' in line 4"),
        ("a: {b: 1, b: 2}", "duplicate key 'b' in line 1"),
        ("1: a\n1: b", "duplicate key 1 in line 2"),
        ("? [a]\n: b", "found unhashable key"),
        ("? {a: b}\n: c", "found unhashable key"),
        ("a: b: c", "mapping values are not allowed here"),
        ("a: [", "expected the node content"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: \x01", "special characters are not allowed"),
        ("[" * 10_000, "maximum recursion depth exceeded"),
        ("a: 2026-13-45", "month must be in 1..12"),
        ("a: " + "1" * 5000, "Exceeds the limit"),
        ("a: !!timestamp 5", "is not what it looks like or is tagged as"),
        ("a: !!bool x", "is not what it looks like or is tagged as"),
        ("a: !!int x", "invalid literal for int"),
        ("a: *nobody", "found undefined alias"),
        (b"a: \xff", "cannot be read: not UTF-8 at byte 3"),
        ("", "must hold a mapping of sections"),
        ("- a\n- b", "must hold a mapping of sections"),
        ("just words", "must hold a mapping of sections"),
    ],
)
def test_file_that_is_no_job_is_refused_by_its_path(job_file, text, message):
    assert message in refusal_of(job_file, text)


def test_file_that_is_not_there_or_a_folder_is_refused(tmp_path):
    assert refusal(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: cannot be read: No such file or directory"
    hint = "a job file ends in .yaml, and --input names a corpus"
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: Is a directory; {hint}"


def test_a_corpus_in_place_of_a_job_file_is_told(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert refusal(tmp_path / "a.jsonl").endswith("; a job file ends in .yaml, and --input names a corpus")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("input.uri=other", {"uri": "other", "keep": ["a", "b"]}),
        ("input.limit=5", {"uri": "corpus/", "keep": ["a", "b"], "limit": 5}),
        ("input.limit=", {"uri": "corpus/", "keep": ["a", "b"], "limit": None}),
        ("input.keep=[c]", {"uri": "corpus/", "keep": ["c"]}),
        ("input.keep={c: int32}", {"uri": "corpus/", "keep": {"c": "int32"}}),
        ("input.text=a=b", {"uri": "corpus/", "keep": ["a", "b"], "text": "a=b"}),
        ("input.text='{title}: {body}'", {"uri": "corpus/", "keep": ["a", "b"], "text": "{title}: {body}"}),
        ("input.deep.er=1", {"uri": "corpus/", "keep": ["a", "b"], "deep": {"er": 1}}),
    ],
)
def test_override_sets_one_key(job_file, override, expected):
    assert read_values(job_file, [override])["input"] == expected


def test_last_override_wins_and_an_empty_section_can_be_filled(job_file):
    job_file.write_text("text:\n")
    assert read_values(job_file, ["text.long=a", "text.long=reject"]) == {"text": {"long": "reject"}}


@pytest.mark.parametrize("override", ["input.limit", "=5", "", ".uri=a", "input.=a", "input..uri=a", "."])
def test_malformed_override_is_refused(override):
    assert refusal(None, override) == f"{override!r}: write an override as section.key=value"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name.first=a", "name.first: 'name' is not a section"),
        ("input.keep.a=1", "input.keep.a: 'keep' is not a section"),
        ("input.limit=[", "input.limit: is not valid YAML: while parsing a flow node"),
        (
            "input.text={a} {b}",
            "input.text: is not valid YAML: expected '<document start>', but found '{'\n  in line 1",
        ),
        ("input.limit=!!python/name:os.system", "input.limit: is not valid YAML: could not determine a constructor"),
        ("input.limit={a: 1, a: 2}", "input.limit: is not valid YAML: duplicate key 'a' in line 1"),
    ],
)
def test_override_that_cannot_be_set_is_refused_by_its_key(job_file, override, message):
    assert refusal(job_file, override).startswith(message)


def test_values_are_shown_short_and_without_credentials():
    assert shown("s3://user:secret@bucket/a and gs://token@b") == "'s3://***@bucket/a and gs://***@b'"
    assert shown({"uri": "s3://user:secret@bucket"}) == "{'uri': 's3://***@bucket'}"
    assert len(shown("x" * 10_000)) == 201


DAILY = """\
name: docs-{ds}
input:
  uri: s3://corpora/dt={ds}/part-{ds}.parquet
  text: "{ds}: {title}"
output:
  uri: s3://vectors/{ds}/
"""


def test_day_is_put_into_name_and_places_and_nowhere_else(job_file):
    job_file.write_text(DAILY)
    assert read_values(job_file, day=date(2026, 11, 4)) == {
        "name": "docs-2026-11-04",
        "input": {"uri": "s3://corpora/dt=2026-11-04/part-2026-11-04.parquet", "text": "{ds}: {title}"},
        "output": {"uri": "s3://vectors/2026-11-04/"},
    }


def test_day_is_put_into_overrides_too(job_file):
    values = read_values(job_file, ["output.uri=out/{ds}"], date(2026, 11, 24))
    assert (values["input"]["uri"], values["output"]["uri"]) == ("corpus/", "out/2026-11-24")


def test_daily_job_without_its_day_is_refused_by_the_key(job_file):
    job_file.write_text(DAILY)
    assert refusal(job_file) == "name: 'docs-{ds}' is of one day among many; name it, as --ds 2026-11-24"
    assert refusal(job_file, "name=docs").startswith("input.uri: 's3://corpora/dt={ds}/part-{ds}.parquet' is of one")


def test_daily_job_does_not_show_credentials_when_it_is_refused():
    assert "secret" not in refusal(None, "output.uri=s3://user:secret@bucket/{ds}")


@pytest.mark.parametrize("overrides", [[], ["input.text='{ds}'"], ["input.uri=['{ds}']"], ["input=corpus/{ds}"]])
def test_day_for_a_job_that_is_the_same_every_day_is_refused(job_file, overrides):
    with pytest.raises(ConfigError, match=r"--ds: no {ds} stands in name, input\.uri, output\.uri"):
        read_values(job_file, overrides, date(2026, 11, 24))
