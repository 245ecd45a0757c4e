"""Where the corpus is, and what becomes of its texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import field_validator

from pipeline.config.section import Count, Section, Text, refuse_credentials

KeepType = Literal["string", "int32", "int64", "float32", "float64", "bool"]


class InputConfig(Section):
    """Where the corpus is and which columns matter."""

    uri: Text
    """File, folder or glob of Parquet or JSON Lines (plain, gzip or zstd), on any fsspec protocol; `{ds}`: the day."""
    format: Literal["auto", "parquet", "jsonl"] = "auto"
    """`auto` goes by the suffix: .parquet, .pq, .jsonl, .ndjson, and .gz or .zst after them."""
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
