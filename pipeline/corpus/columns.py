"""Check the job's columns against the files before a run, and fix the types of the kept ones.

A kept column's type: the job's, else the common type of the Parquet and CSV files (all strings), else string.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

import pyarrow as pa

from pipeline.config import InputConfig
from pipeline.corpus.parquet import fits_id, fits_template, fits_text
from pipeline.corpus.rows import RowRule, partition_values
from pipeline.exceptions import ConfigError, SourceSchemaError
from pipeline.records import Format, SourceFile
from pipeline.schema import KEEP_TYPES, plain_type

Columns = Mapping[str, pa.DataType | None]
_DELIMITERS = set(",;|\t")
"""What a column's name holds where the header was taken apart at something else."""


class ColumnCheck:
    """Sees each file's columns once, in listing order."""

    def __init__(self, config: InputConfig, rule: RowRule) -> None:
        self._rule = rule
        self._keep: dict[str, pa.DataType | None] = {
            name: KEEP_TYPES[kind] if kind else None for name, kind in config.keep_types.items()
        }
        self._typed = {name for name, kind in self._keep.items() if kind is not None}
        self._seen: dict[str, str] = {}
        self._unseen = set(self._keep) - self._typed
        self._sampled: set[str] = set()

    def add(self, source: SourceFile, columns: Columns) -> None:
        """Check one file.

        Raises:
            ConfigError: a key names a column that the file, or the first rows of a line file, do not have.
            SourceSchemaError: a column's type does not fit.
        """
        partitions = dict.fromkeys((name for name, _ in source.partitions), pa.string())
        present: Columns = {**partitions, **columns}
        typed = {name: kind for name, kind in self._keep.items() if kind is not None and name not in columns}
        partition_values(source, typed)
        # a CSV file without a header is empty
        if source.format is Format.PARQUET or (columns and source.format is not Format.JSONL):
            self._check_types(source, present)
            self._unify(source, present)
        elif columns:
            for name, key in self._rule.text_keys.items():
                if name not in present:
                    raise ConfigError(key, _no_column(name, source, present))
            if self._rule.id_required and self._rule.id_column not in present:
                raise ConfigError("input.id", _no_column(self._rule.id_column, source, present))
        if columns:
            self._unseen -= set(present)
            self._sampled |= set(present)

    def keep_types(self) -> dict[str, pa.DataType]:
        """Return the kept columns' types, once every file was added.

        Raises:
            ConfigError: no file shows a kept column that the job does not type.
        """
        for name in self._keep:
            if self._sampled and name in self._unseen:
                reason = f"no file has {name!r} in its first rows ({_columns(name, self._sampled)})"
                raise ConfigError("input.keep", f"{reason}; give its type if it is that rare")
        return {name: pa.string() if kind is None else kind for name, kind in self._keep.items()}

    def _check_types(self, source: SourceFile, present: Columns) -> None:
        for name, key in self._rule.text_keys.items():
            kind = _required(source, present, name, key)
            if not (fits_text(kind) if name in self._rule.whole_columns else fits_template(kind)):
                hint = f', or a template such as "{{{name}}}"' if fits_template(kind) else ""
                raise SourceSchemaError(source.path, name, f"is {kind}; a text is a string column{hint}")
        if self._rule.id_required or self._rule.id_column in present:
            kind = _required(source, present, self._rule.id_column, "input.id")
            if not fits_id(kind):
                raise SourceSchemaError(
                    source.path, self._rule.id_column, f"is {kind}; an id is a string or an integer"
                )

    def _unify(self, source: SourceFile, present: Columns) -> None:
        for name, known in self._keep.items():
            kind = plain_type(_required(source, present, name, "input.keep"))
            if name in self._typed:
                if not _can_become(kind, known):
                    raise SourceSchemaError(source.path, name, f"is {kind}, which cannot become {known}")
            elif known is None:
                self._keep[name], self._seen[name] = kind, source.path
            elif known != kind:
                self._keep[name] = self._common(source, name, known, kind)

    def _common(self, source: SourceFile, name: str, known: pa.DataType, kind: pa.DataType) -> pa.DataType:
        fields = [pa.schema([pa.field(name, each)]) for each in (known, kind)]
        try:
            common = pa.unify_schemas(fields, promote_options="permissive").field(0).type
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            common = None
        if common is None or not (_can_become(known, common) and _can_become(kind, common)):
            reason = f"is {kind}, but {known} in {self._seen[name]!r}; give its type in input.keep"
            raise SourceSchemaError(source.path, name, reason)
        return common


def _can_become(kind: pa.DataType, wanted: pa.DataType) -> bool:
    try:
        pa.nulls(1, kind).cast(wanted)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return True


def _required(source: SourceFile, present: Columns, name: str, key: str) -> pa.DataType:
    kind = present.get(name)
    if kind is None:
        raise ConfigError(key, _no_column(name, source, present))
    return kind


def _no_column(name: str, source: SourceFile, present: Collection[str]) -> str:
    if source.format in (Format.CSV, Format.TSV) and any(set(column) & _DELIMITERS for column in present):
        hint = f"its header gives {', '.join(map(repr, sorted(present)))}; say in input.csv what stands between fields"
        return f"no such column in {source.path!r}; {hint}"
    return f"no such column in {source.path!r}; {_columns(name, present)}"


def _columns(name: str, present: Collection[str]) -> str:
    near = difflib.get_close_matches(name, present, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}it has {', '.join(sorted(present))}, not {name!r}" if present else "it has no columns"
