"""A reply of the API, believed only where it is whole: every vector once, of the right model and dimension."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.encoders.base import Vectors
from pipeline.exceptions import ModelError


class MalformedReplyError(Exception):
    """A reply that is cut, or lacks, repeats or renames vectors: nothing of it is used, and it is asked for again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a reply must be of; `reply_model` and `dimension` are None while the API is asked for them."""

    model: str
    reply_model: str | None
    dimension: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Vectors float32 [n, dimension] in the order of the texts, the tokens billed, and the model's name there."""

    vectors: Vectors
    tokens: int
    model: str


def parse(content: bytes, count: int, expected: Expected) -> Reply:
    """Read a reply to `count` texts; vectors may be base64 (little-endian float32) or lists of numbers.

    Raises:
        MalformedReplyError: it is not a whole reply to this request.
        ModelError: it is one of another model, or of vectors of another dimension.
    """
    try:
        reply = json.loads(content)
        model, entries, tokens = reply["model"], reply["data"], reply["usage"]["prompt_tokens"]
        places = [entry["index"] for entry in entries]
        texts = [entry["embedding"] for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it is not a reply of the embeddings API, or is cut ({type(error).__name__})"
        raise MalformedReplyError(reason) from None
    if type(tokens) is not int or tokens < 0:
        raise MalformedReplyError("usage.prompt_tokens is no count")
    _check_places(places, count)
    if not isinstance(model, str) or expected.reply_model not in (None, model):
        named = f"the API answers as model {str(model)[:80]!r}, planned was {expected.reply_model!r}"
        raise ModelError(expected.model, f"{named}; vectors of two models must not stand in one output")
    rows = [_vector(text) for text in texts]
    dimension = expected.dimension or len(rows[0])
    wrong = next((len(row) for row in rows if len(row) != dimension), None)
    if wrong is not None:
        what = f"the API returned {wrong} numbers a vector, {dimension} were expected"
        raise ModelError(expected.model, f"{what}; check encoder.remote.dimensions and what answers at base_url")
    vectors = np.empty((count, dimension), np.float32)
    vectors[places] = rows
    return Reply(vectors=vectors, tokens=tokens, model=model)


def _check_places(places: Sequence[Any], count: int) -> None:
    """Make sure that each text has one vector, whatever their order."""
    if len(places) != count:
        raise MalformedReplyError(f"{len(places)} vectors for {count} texts")
    if any(type(place) is not int for place in places) or sorted(places) != list(range(count)):
        raise MalformedReplyError("an index is missing or stands twice")


def _vector(value: object) -> Vectors:
    try:
        if isinstance(value, str):
            found = np.frombuffer(base64.b64decode(value, validate=True), "<f4")
        else:
            found = np.array(value, np.float32)
    except (binascii.Error, ValueError, TypeError):
        raise MalformedReplyError("a vector that is neither base64 of float32 nor a list of numbers") from None
    if found.ndim != 1 or not len(found):
        raise MalformedReplyError("a vector without numbers")
    return found.astype(np.float32, copy=False)
