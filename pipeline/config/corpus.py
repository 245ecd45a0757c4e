"""Where the corpus is, and what becomes of its texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.config.section import Count, Section, Text, refuse_credentials

KeepType = Literal["string", "int32", "int64", "float32", "float64", "bool"]


class CsvConfig(Section):
    """How CSV and TSV files are written."""

    delimiter: Text | None = None
    """The character between fields; when absent a comma for .csv, a tab for .tsv."""
    quoting: Literal["standard", "none"] = "standard"
    """`standard`: a field may stand in double quotes, with line ends, delimiters and doubled quotes in it (RFC 4180);
    `none`: quotes are text and every line is a record."""
    header: Annotated[bool, Field(strict=True)] | Annotated[tuple[Text, ...], Field(min_length=1)] = True
    """Whether the first record names the columns; where it does not, a list of their names, or `false` for `column1`,
    `column2` and so on."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str | None) -> str | None:
        if delimiter is None or (len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\r\n\0'):
            return delimiter
        msg = 'write one ASCII character, neither a double quote nor a line end; a tab is "\\t" in double quotes'
        raise ValueError(msg)

    @field_validator("header")
    @classmethod
    def _each_once(cls, header: bool | tuple[str, ...]) -> bool | tuple[str, ...]:  # noqa: FBT001
        if not isinstance(header, bool) and len(set(header)) < len(header):
            msg = "name each column once"
            raise ValueError(msg)
        return header


class InputConfig(Section):
    """Where the corpus is and which columns matter."""

    uri: Text
    """File, folder or glob of Parquet, or of JSON Lines, CSV or TSV (plain, gzip or zstd), on any fsspec protocol;
    `{ds}`: the day."""
    format: Literal["auto", "parquet", "jsonl", "csv", "tsv"] = "auto"
    """`auto` goes by the suffix: .parquet, .pq, .jsonl, .ndjson, .csv, .tsv, and .gz or .zst after the last four."""
    csv: CsvConfig = CsvConfig()
    """How CSV and TSV files are written, where not as usual."""
    text: Text = "text"
    """The column to embed, or a template over columns such as "{title}\\n{body}"."""
    id: Text | None = None
    """The column carried as `id`; when absent, a column named `id` if there is one."""
    keep: tuple[Text, ...] | dict[Text, KeepType] = ()
    """Columns (or Hive partition keys) carried to the output; a mapping gives their types."""
    limit: Count | None = None
    """Embed only the first n rows: a trial, and the output says so."""
    max_text_bytes: Count = 32 << 20
    """A longer text is set aside as a dead letter before it is tokenized."""

    @field_validator("uri")
    @classmethod
    def _no_credentials(cls, uri: str) -> str:
        return refuse_credentials(uri)

    @property
    def keep_types(self) -> dict[str, str | None]:
        """Kept columns in output order, each with its configured type or None."""
        if isinstance(self.keep, Mapping):
            return dict(self.keep)
        return dict.fromkeys(self.keep)


class TextConfig(Section):
    """What happens to a text that does not fit."""

    long: Literal["truncate", "reject"] = "truncate"
    """`truncate` embeds the beginning and marks the row; `reject` makes it a dead letter."""
