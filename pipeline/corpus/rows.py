"""Turn raw records into clean rows: text, prompt and id, or a dead letter with its reason.

The row key is (source file, ordinal).
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping

import pyarrow as pa

from pipeline.config import InputConfig, PromptConfig
from pipeline.exceptions import ConfigError, SourceSchemaError
from pipeline.records import DeadCode, SourceFile


class DeadRowError(Exception):
    """Raised while one row is read; becomes its dead letter and never leaves `corpus`."""

    def __init__(self, code: DeadCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class Template:
    """A format string over column names: "{title}: {body}"."""

    def __init__(self, key: str, text: str) -> None:
        self._parts: list[tuple[str, str | None]] = []
        try:
            for literal, name, spec, conversion in string.Formatter().parse(text):
                if spec or conversion or name == "":
                    raise ConfigError(key, f"write only column names in braces (got {text!r})")
                self._parts.append((literal, name))
        except ValueError as error:
            raise ConfigError(key, f"is not a template: {error} (got {text!r})") from None
        if not self.columns:
            raise ConfigError(key, f"names no column in braces (got {text!r})")

    @property
    def columns(self) -> list[str]:
        """Column names in order of their first use."""
        return list(dict.fromkeys(name for _, name in self._parts if name is not None))

    def fill(self, record: Mapping[str, object]) -> str | None:
        """Fill in one row; a null column is empty text, and all of them null give None."""
        values = {name: record[name] for name in self.columns if name in record}
        missing = [name for name in self.columns if name not in values]
        if missing:
            raise DeadRowError(DeadCode.MISSING_TEXT, f"no column {missing[0]!r}")
        if all(value is None for value in values.values()):
            return None
        return "".join(literal + ("" if name is None else _scalar(name, values[name])) for literal, name in self._parts)


def _scalar(column: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise DeadRowError(DeadCode.BAD_TYPE, f"column {column!r} holds a {type(value).__name__}")


class RowRule:
    """Which columns make text, prompt and id. Built from the job; the same in every process."""

    def __init__(self, config: InputConfig, prompt: PromptConfig | None = None) -> None:
        self._config = config
        self._text = Template("input.text", config.text) if "{" in config.text else None
        self._prompt: Template | None = None
        self._prompt_column: str | None = None
        if prompt is not None and prompt.template is not None:
            self._prompt = Template("encoder.prompt.template", prompt.template)
        self._vocabulary: frozenset[str] | None = None
        if prompt is not None:
            self._prompt_column = prompt.column
            self._vocabulary = None if prompt.vocabulary is None else frozenset(prompt.vocabulary)

    @property
    def id_column(self) -> str:
        """The column carried as `id`; optional when the job does not name one."""
        return self._config.id or "id"

    @property
    def id_required(self) -> bool:
        """Whether the job names its id column, so that every file must have it."""
        return self._config.id is not None

    @property
    def max_text_bytes(self) -> int:
        """UTF-8 bytes a text may have."""
        return self._config.max_text_bytes

    @property
    def whole_columns(self) -> list[str]:
        """Columns that are a text or a prompt by themselves, not a part of a template."""
        columns = [] if self._text else [self._config.text]
        return columns + ([self._prompt_column] if self._prompt_column else [])

    @property
    def has_prompts(self) -> bool:
        """Whether each row brings its own prompt."""
        return self._prompt is not None or self._prompt_column is not None

    @property
    def text_columns(self) -> list[str]:
        """Columns the text and the prompt are made of, each once."""
        return list(self.text_keys)

    @property
    def text_keys(self) -> dict[str, str]:
        """Those columns, each with the key of the job that names it first."""
        keys = dict.fromkeys(self._text.columns if self._text else [self._config.text], "input.text")
        for column in self._prompt.columns if self._prompt else []:
            keys.setdefault(column, "encoder.prompt.template")
        if self._prompt_column:
            keys.setdefault(self._prompt_column, "encoder.prompt.column")
        return keys

    def text(self, record: Mapping[str, object]) -> str:
        """Return the row's text.

        Raises:
            DeadRowError: it is missing, empty, not a string, not Unicode, or too large.
        """
        value = self._text.fill(record) if self._text else _required(record, self._config.text)
        if value is None:
            raise DeadRowError(DeadCode.EMPTY, "the text is null")
        if not isinstance(value, str):
            reason = f"column {self._config.text!r} holds a {type(value).__name__}, not a string"
            raise DeadRowError(DeadCode.BAD_TYPE, reason)
        if not value.strip():
            raise DeadRowError(DeadCode.EMPTY, "the text is empty")
        size = len(check_unicode(value))
        if size > self._config.max_text_bytes:
            reason = f"{size} bytes of text; input.max_text_bytes is {self._config.max_text_bytes}"
            raise DeadRowError(DeadCode.TOO_LARGE, reason)
        return value

    def prompt(self, record: Mapping[str, object]) -> str:
        """Return the row's own prompt, or "" where it is null or the job has none per row.

        Raises:
            DeadRowError: it is not a string, not Unicode, or not in the vocabulary.
        """
        value: object = ""
        if self._prompt is not None:
            value = self._prompt.fill(record)
        elif self._prompt_column is not None:
            value = _required(record, self._prompt_column)
        if not isinstance(value, str | None):
            raise DeadRowError(DeadCode.BAD_TYPE, f"the prompt is a {type(value).__name__}, not a string")
        prompt = value or ""
        check_unicode(prompt)
        if self._vocabulary is not None and prompt not in self._vocabulary:
            reason = f"the prompt {prompt[:80]!r} is not in encoder.prompt.vocabulary"
            raise DeadRowError(DeadCode.BAD_PROMPT, reason)
        return prompt

    def row_id(self, record: Mapping[str, object]) -> str | None:
        """Return the id as text: strings as they are, anything else as JSON; null where absent."""
        value = record.get(self.id_column)
        if value is None:
            return None
        text = value if isinstance(value, str) else json_text(value, DeadCode.BAD_TYPE, allow_nan=True)
        check_unicode(text)
        return text


def _required(record: Mapping[str, object], column: str) -> object:
    if column not in record:
        raise DeadRowError(DeadCode.MISSING_TEXT, f"no column {column!r}")
    return record[column]


def json_text(value: object, code: DeadCode = DeadCode.BAD_VALUE, *, allow_nan: bool = False) -> str:
    """Return a value that is no string as JSON text."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=allow_nan)
    except ValueError as error:
        raise DeadRowError(code, str(error)) from None


def partition_values(source: SourceFile, keep: Mapping[str, pa.DataType]) -> dict[str, object]:
    """Return the kept partition values of a file's path, each with its column's type.

    Raises:
        SourceSchemaError: a value does not fit.
    """
    values: dict[str, object] = {}
    for name, text in source.partitions:
        if name in keep:
            try:
                values[name] = pa.scalar(text, pa.string()).cast(keep[name]).as_py()
            except pa.ArrowException as error:
                reason = f"the partition value {text!r} cannot become {keep[name]}: {error}"
                raise SourceSchemaError(source.path, name, reason) from None
    return values


def check_unicode(text: str) -> bytes:
    """Return the text as UTF-8; lone surrogates, which JSON escapes can spell, are not Unicode text."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DeadRowError(DeadCode.BAD_UTF8, f"lone surrogate at character {error.start}") from None
