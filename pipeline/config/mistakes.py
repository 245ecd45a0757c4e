"""What pydantic says of a wrong job, in the words of the job file: which key, why, and which was meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from pipeline.config.cluster import REPLICA_KINDS
from pipeline.config.job_file import shown
from pipeline.config.section import Section

_SHAPES = {
    "tuple_type": "write a list, such as [a, b]",
    "dict_type": "write a mapping",
    "model_type": "holds keys of its own, one a line",
}
"""What pydantic calls by Python's names."""


def first(job: type[Section], error: ValidationError) -> tuple[str, str]:
    """Return a wrong key of a job by its path, and what is wrong with it; a misspelt one before a missing one."""
    found = sorted(error.errors(include_url=False), key=lambda detail: detail["type"] == "missing")
    key = _key_path(job, found[0]["loc"])
    reason = _reason(job, [detail for detail in found if _key_path(job, detail["loc"]) == key])
    if found[0]["type"] == "missing" and len(found) > 1:
        others = [_key_path(job, detail["loc"]) for detail in found[1:]]
        reason += f", and so {'is' if len(others) == 1 else 'are'} {', '.join(others)}"
    return key, reason


def _key_path(job: type[Section], loc: tuple[int | str, ...]) -> str:
    """Return the key an error is about; what follows a key in pydantic's path names types and places in it."""
    model: type[Section] | None = job
    parts = []
    for part in loc:
        if model is None:
            break
        if part in REPLICA_KINDS.values():
            continue
        parts.append(str(part))
        model = _section_at(model, str(part))
    return ".".join(parts) or "job"


def _reason(job: type[Section], details: Sequence[Mapping[str, Any]]) -> str:
    """Say what is wrong with one key; where it may be of several types, one detail each."""
    first = details[0]
    if first["type"] == "extra_forbidden":
        *section, key = map(str, first["loc"])
        known = _valid_keys(job, section)
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        if not section and not near:
            near = [f"{name}.{key}" for name in known if key in _valid_keys(job, [name])]
        return f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; valid here: {', '.join(known)}"
    if first["type"] == "missing":
        return "is required"
    details = [detail for detail in details if detail["type"] not in _SHAPES] or details
    messages = (_SHAPES.get(detail["type"]) or str(detail["msg"]).removeprefix("Value error, ") for detail in details)
    said = ", or ".join(dict.fromkeys(f"{message[0].lower()}{message[1:]}" for message in messages))
    if first["loc"][:2] == ("encoder", "remote") and not isinstance(first["input"], int | float):
        return said  # what stands there by mistake may be a key of the API
    if any(detail["type"] == "string_type" and isinstance(detail["input"], dict) for detail in details):
        said += ": YAML reads braces as a mapping, so put the value in quotes"
    return f"{said} (got {shown(details[0]['input'])})"


def _valid_keys(job: type[Section], sections: Sequence[str]) -> list[str]:
    model: type[Section] | None = job
    for part in sections:
        model = _section_at(model, part) if model else None
    return list(model.model_fields) if model else []


def _section_at(model: type[Section], key: str) -> type[Section] | None:
    field = model.model_fields.get(key)
    kinds = _annotations(field.annotation) if field else []
    return next((kind for kind in kinds if issubclass(kind, Section)), None)


def _annotations(annotation: Any) -> list[type]:
    """Return the types that a key may have, out of unions and what is said beside them."""
    if isinstance(annotation, type):
        return [annotation]
    return [kind for option in get_args(annotation) for kind in _annotations(option)]
