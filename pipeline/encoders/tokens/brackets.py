"""SGPT's brackets: a token before and one after each text, `[ ]` around a query and `{ }` around a document.

Muennighoff 2022 (arXiv:2202.08904), as the code of its repository has it: the brackets are put around the tokens of a
text, never around the text, where a tokenizer could merge them with its words. They count towards the limit, as in its
retriever (biencoder/beir): a text is cut to the limit less two.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pipeline.encoders.base import Brackets
from pipeline.exceptions import ConfigError, ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LEAST_TOKENS = 3
"""Both brackets, and one token of the text."""
_CHARACTERS = {"query": "[]", "document": "{}"}
_SGPT = re.compile(r"(^|/)sgpt-[^/]*(specb|bloom-7b1-msmarco)[^/]*/?$", re.IGNORECASE)


def resolve(asked: Literal["none", "query", "document"] | None, model: str) -> Brackets | None:
    """Return what the job says.

    Raises:
        ConfigError: it says nothing, and the model is named as one that was trained with brackets.
    """
    if asked is None and _SGPT.search(model):
        reason = "this SGPT was trained with brackets that tell a query from a document; say document, query or none"
        raise ConfigError("encoder.brackets", reason)
    return None if asked == "none" else asked


def refuse_prompt(brackets: Brackets | None) -> None:
    """Refuse a prompt beside brackets: nothing published says where it would stand.

    Raises:
        ConfigError: there are brackets.
    """
    if brackets is not None:
        raise ConfigError("encoder.prompt", "encoder.brackets takes the place of a prompt; leave one of them out")


def tokens(brackets: Brackets, tokenizer: Tokenizer, model: str) -> tuple[int, int]:
    """Return the token before and the one after each text.

    Raises:
        ModelError: a bracket is not one token of this tokenizer.
    """
    encoded = [tokenizer.encode(character, add_special_tokens=False).ids for character in _CHARACTERS[brackets]]
    if [len(ids) for ids in encoded] != [1, 1]:
        raise ModelError(model, f"its tokenizer has no token for each of {_CHARACTERS[brackets]!r} (encoder.brackets)")
    return encoded[0][0], encoded[1][0]
