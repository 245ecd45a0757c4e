"""A series: outputs of one growing input, each with the files that no other has planned.

`_series/000001.json` and so on, below the series' folder, name its outputs in order, created once each. A place is
taken only when every other output has its plan, and an output plans only after it has its place; so no file is in
two plans, whatever runs at the same time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from pipeline import fingerprint
from pipeline.config import JobConfig
from pipeline.corpus import Listing
from pipeline.corpus.files import describe_change
from pipeline.exceptions import DamagedOutputError, PlanChangedError, SeriesOrderError
from pipeline.plan.document import SERIES, Plan, load
from pipeline.records import SourceFile
from pipeline.storage import Store, open_store

FORMAT = 1
READERS = 16
_ENTRY = re.compile(rf"{SERIES}/\d{{6}}\.json")
_SHARED = ("encoder", "encoding_version")
"""Of what a job was resolved to, what all outputs of a series must share; unit sizes and the device need not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What the other outputs of a series have planned: each file and the output that has it, and the newest plan."""

    files: Mapping[str, tuple[SourceFile, str]] = field(default_factory=dict)
    last: Plan | None = None

    def changes(self, listing: Listing) -> list[str]:
        """Say which planned files were rewritten since, a line each; their rows would be embedded twice."""
        now = {source.path: (source.size, source.etag) for source in listing.sources}
        planned = [(*self.files[path], pin) for path, pin in now.items() if path in self.files]
        return [
            f"{change}, and {output} of this series has it"
            for source, output, pin in planned
            if (change := describe_change(source, pin))
        ]

    def new(self, listing: Listing) -> Listing:
        """Leave out what is planned already."""
        return replace(listing, sources=[source for source in listing.sources if source.path not in self.files])

    def refuse_others(self, output: str, requested: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
        """Let only equal jobs into one series.

        Raises:
            PlanChangedError: with one line a key that differs.
        """
        if self.last is not None:
            before = {**self.last.requested, **{key: self.last.resolved[key] for key in _SHARED}}
            _refuse(output, before, {**requested, **{key: resolved[key] for key in _SHARED}})

    def refuse_columns(self, output: str, columns: pa.Schema) -> None:
        """Let only equal columns into one series.

        Raises:
            PlanChangedError: kept columns have other types in the new files.
        """
        if self.last is not None:
            types = [
                {"columns": {item.name: str(item.type) for item in found}} for found in (self.last.schema, columns)
            ]
            _refuse(output, *types)


def outputs(store: Store) -> list[str]:
    """Name the outputs of a series in order, as paths below it; none where the store holds no series.

    Raises:
        DamagedOutputError: an entry is missing, or is none of ours.
    """
    keys = [stored.key for stored in store.list(SERIES) if _ENTRY.fullmatch(stored.key)]
    wanted = [_key(number) for number in range(1, len(keys) + 1)]
    if keys != wanted:
        raise DamagedOutputError(store.uri, [f"{key} is missing" for key in wanted if key not in keys])
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda key: _read(store, key), keys))


def read_taken(config: JobConfig, *, joining: bool) -> Taken:
    """Read the plans of all outputs but the job's own; `joining` takes its place in the series, for good.

    Those after it are there where its own plan was deleted, to be made anew.

    Raises:
        SeriesOrderError: one of them has no plan yet.
    """
    if config.output.series is None or config.output.place is None:
        return Taken()
    store, own = open_store(config.output.series), config.output.place
    while True:
        names = outputs(store)
        taken = _read_plans(store, {_key(number): name for number, name in enumerate(names, 1) if name != own})
        if own in names or not joining:
            return taken
        entry = fingerprint.canonical_json({"format": FORMAT, "output": own})
        if store.create(_key(len(names) + 1), entry):
            return taken


def _read_plans(store: Store, entries: Mapping[str, str]) -> Taken:
    files: dict[str, tuple[SourceFile, str]] = {}
    last = None
    for name, last in _plans(store, entries):
        files |= {source.path: (source, name) for source in last.sources}
    return Taken(files=files, last=last)


def _plans(store: Store, entries: Mapping[str, str]) -> Iterator[tuple[str, Plan]]:
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda name: load(open_store(f"{store.uri}/{name}")), entries.values())
        for (key, name), plan in zip(entries.items(), found, strict=True):
            if plan is None:
                raise SeriesOrderError(store.uri, name, key)
            yield name, plan


def _refuse(output: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changes = fingerprint.differences(before, now)
    if changes:
        raise PlanChangedError(output, changes)


def _key(number: int) -> str:
    return f"{SERIES}/{number:06d}.json"


def _read(store: Store, key: str) -> str:
    try:
        entry = json.loads(store.read(key) or b"")
        name = entry["output"]
        if entry["format"] == FORMAT and not {"", ".", ".."} & set(name.split("/")):
            return str(name)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise DamagedOutputError(store.uri, [f"{key} is no entry of a series"])
