"""What must become of a source row, judged from the record and the job's own words alone.

A judgement is a set of dead-letter codes: none means that the row must be embedded, several that any of them
is true of it. Codes that only the encoder or the typing of kept columns can tell are not judged.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.plan import Plan
from pipeline.records import DeadCode
from pipeline.schema import kept_columns

UNJUDGED = frozenset(
    {
        DeadCode.TOO_LONG,
        DeadCode.BAD_VECTOR,
        DeadCode.WORKER_KILLED,
        DeadCode.REFUSED,
        DeadCode.BAD_VALUE,
        DeadCode.SOURCE_CHANGED,
    }
)

Row = Mapping[str, object] | DeadCode
"""A record, or why there is none. Text that is not UTF-8 stands in a record as bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`text` (after its prompt) and `row_id` mean something only where `codes` is empty."""

    codes: frozenset[DeadCode]
    text: str = ""
    row_id: str | None = None


class RowJudge:
    """The rules of one job, read from its plan."""

    def __init__(self, plan: Plan) -> None:
        asked = plan.requested["input"]
        prompt = plan.requested["encoder"]["prompt"] or {}
        self._text = _Words(asked["text"], is_template="{" in asked["text"])
        self._prompt = _Words.of_prompt(prompt)
        self._prompts: list[str] | None = prompt.get("vocabulary")
        self._fixed_prompt: str = plan.resolved["encoder"]["prompt"]
        self._id_column: str = asked["id"] or "id"
        self.kept = kept_columns(plan.schema)
        self.max_text_bytes: int = asked["max_text_bytes"]
        self.csv: Mapping[str, Any] = asked.get("csv", {})

    @property
    def columns(self) -> list[str]:
        """Columns that a judgement looks at, kept ones apart."""
        prompt = self._prompt.columns if self._prompt else []
        return list(dict.fromkeys([*self._text.columns, *prompt, self._id_column]))

    def judge(self, row: Row) -> Judgement:
        """Say what must become of a row."""
        if isinstance(row, DeadCode):
            return Judgement(codes=frozenset({row}))
        text, codes = self._text.say(row)
        codes |= _text_faults(text, self.max_text_bytes) if not codes else set()
        prompt: str | None = self._fixed_prompt
        if self._prompt is not None:
            prompt, faults = self._prompt.say(row)
            if not faults and self._prompts is not None and (prompt or "") not in self._prompts:
                faults = {DeadCode.BAD_PROMPT}
            codes |= faults
        row_id, faults = _id_text(row.get(self._id_column))
        codes |= faults
        if not all(map(_is_unicode, (text, prompt, row_id, *(row.get(name) for name in self.kept)))):
            codes.add(DeadCode.BAD_UTF8)
        if codes:
            return Judgement(codes=frozenset(codes))
        return Judgement(codes=frozenset(), text=(prompt or "") + (text or ""), row_id=row_id)


class _Words:
    """A column, or a template over columns, that gives one text a row."""

    def __init__(self, source: str, *, is_template: bool) -> None:
        parsed = string.Formatter().parse(source) if is_template else [("", source, None, None)]
        self._parts = [(literal, name) for literal, name, _, _ in parsed]
        self._is_template = is_template
        self.columns = [name for _, name in self._parts if name is not None]

    @classmethod
    def of_prompt(cls, prompt: Mapping[str, str | None]) -> _Words | None:
        """Read how rows get prompts of their own; None where all rows have the same."""
        if template := prompt.get("template"):
            return cls(template, is_template=True)
        column = prompt.get("column")
        return None if column is None else cls(column, is_template=False)

    def say(self, record: Mapping[str, object]) -> tuple[str | None, set[DeadCode]]:
        """Return the text of a row, None for null, and what is wrong with its columns."""
        if any(name not in record for name in self.columns):
            return None, {DeadCode.MISSING_TEXT}
        values = [record[name] for name in self.columns]
        if all(value is None for value in values):
            return None, set()
        codes = {code for code in map(self._fault, values) if code is not None}
        if codes:
            return None, codes
        spoken = "".join(literal + ("" if name is None else _spoken(record[name])) for literal, name in self._parts)
        return spoken, set()

    def _fault(self, value: object) -> DeadCode | None:
        if isinstance(value, bytes):
            return DeadCode.BAD_UTF8
        scalar = isinstance(value, str) or (self._is_template and isinstance(value, bool | int | float | None))
        return None if scalar else DeadCode.BAD_TYPE


def _spoken(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _text_faults(text: str | None, max_bytes: int) -> set[DeadCode]:
    if text is None or not text.strip():
        return {DeadCode.EMPTY}
    return {DeadCode.TOO_LARGE} if len(text.encode(errors="surrogatepass")) > max_bytes else set()


def _id_text(value: object) -> tuple[str | None, set[DeadCode]]:
    if isinstance(value, bytes):
        return None, {DeadCode.BAD_UTF8}
    try:
        return json_text(value), set()
    except RecursionError:
        return None, {DeadCode.BAD_TYPE}


def json_text(value: object) -> str | None:
    """Return a JSON value as the text it becomes in the output: strings as they are, null as null."""
    return value if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False)


def _is_unicode(value: object) -> bool:
    try:
        (json_text(value) or "").encode()
    except UnicodeEncodeError:
        return False
    except (TypeError, RecursionError):
        pass  # no JSON: a kept value of Parquet, or one too deep to be written; not a matter of Unicode
    return True
