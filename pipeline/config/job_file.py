"""A job file and its overrides as plain values: YAML, and nothing of it that could harm; `{ds}` filled with a day.

What the values mean is decided in `job`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from pipeline.exceptions import ConfigError

SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 1 << 20
MAX_ALIASES = 16
MAX_SHOWN = 200
"""Characters of a wrong value that an error repeats."""

USER_INFO = re.compile(r"([A-Za-z0-9+.-]{1,32})://([^/?#]*)@")
"""Protocol and user part of each URI in a text; bounded, as the text may be long."""


DAY = "{ds}"
"""The day of a run, as Airflow calls it, in the keys below; elsewhere it is a column or plain text."""
DAILY_KEYS = ("name", "input.uri", "output.uri")


def read_values(path: Path | None, overrides: Sequence[str] = (), day: date | None = None) -> dict[str, Any]:
    """Read a job file, set what `section.key=value` overrides say, and put the day for `{ds}`.

    Raises:
        ConfigError: the file cannot be read or is not YAML of our kind, an override is malformed, or one of
            `{ds}` and the day is there without the other.
    """
    values = _read_file(path) if path is not None else {}
    for override in overrides:
        _apply_override(values, override)
    _set_day(values, day)
    return values


def shown(value: object) -> str:
    """Return a wrong value as an error may repeat it: short, without credentials."""
    text = USER_INFO.sub(r"\1://***@", repr(value))
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _read_file(path: Path) -> dict[str, Any]:
    other = "" if path.suffix in SUFFIXES else f"; a job file ends in {SUFFIXES[0]}, and --input names a corpus"
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(str(path), f"a job file of {size} bytes; at most {MAX_BYTES} are read{other}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror or error}{other}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"cannot be read: not UTF-8 at byte {error.start}{other}") from error
    values = _parse(str(path), text, other)
    if not isinstance(values, dict):
        raise ConfigError(str(path), f"must hold a mapping of sections{other}")
    return values


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    *sections, last = key.split(".")
    if not separator or not all([*sections, last]):
        raise ConfigError(shown(override), "write an override as section.key=value")
    for part in sections:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            raise ConfigError(key, f"{part!r} is not a section")
    values[last] = _parse(key, text)


def _set_day(values: dict[str, Any], day: date | None) -> None:
    daily = list(_daily(values))
    if day is None and daily:
        path, place, key = daily[0]
        raise ConfigError(path, f"{shown(place[key])} is of one day among many; name it, as --ds 2026-11-24")
    if day is not None and not daily:
        raise ConfigError("--ds", f"no {DAY} stands in {', '.join(DAILY_KEYS)}: the job would be the same on any day")
    for _, place, key in daily:
        place[key] = place[key].replace(DAY, str(day))


def _daily(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield each key that has `{ds}`: its path, the section it is in, and its name there."""
    for path in DAILY_KEYS:
        section, _, key = path.rpartition(".")
        place = values.get(section) if section else values
        if isinstance(place, dict) and isinstance(text := place.get(key), str) and DAY in text:
            yield path, place, key


def _parse(where: str, text: str, hint: str = "") -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        said = str(error).replace('in "<unicode string>", ', "in ")
        if "found '{'" in said and not hint:
            hint = "\n(a value that begins with a brace must stand in quotes)"
        raise ConfigError(where, f"is not valid YAML: {said}{hint}") from None
    except (ValueError, KeyError, AttributeError) as error:
        # what PyYAML lets through for a date, number or boolean that only looks like one
        raise ConfigError(
            where, f"is not valid YAML: a value is not what it looks like or is tagged as: {error}"
        ) from None


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and many aliases (alias bombs)."""

    aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                msg = f"more than {MAX_ALIASES} aliases"
                raise yaml.YAMLError(msg)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - overrides
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused by the next call
            if key in seen:
                msg = f"duplicate key {key!r} in line {key_node.start_mark.line + 1}"
                raise yaml.YAMLError(msg)
            seen.add(key)
        return super().construct_mapping(node, deep)
