"""What a prompt is to a model: text put before a text.

Pooling sees it, leaves it out, or leaves it out by INSTRUCTOR's published rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pipeline.config import PromptConfig
from pipeline.encoders.base import PromptPooling
from pipeline.exceptions import ConfigError

_INSTRUCTOR = re.compile(r"(^|/)hkunlp/instructor-[^/]+/?$")


_ALWAYS_PROMPTED = (
    (
        re.compile(r"(^|/)intfloat/(multilingual-)?e5-(small|base|large)(-v2|-unsupervised)?/?$"),
        '"passage: " for documents, "query: " for queries',
    ),
    (
        re.compile(r"(^|/)nomic-ai/(nomic-embed-text-v[^/]+|modernbert-embed-base)/?$"),
        '"search_document: " for documents, "search_query: " for queries',
    ),
    (_INSTRUCTOR, 'such as "Represent the document for retrieval: "'),
)
"""Models whose authors ask for a prompt before every text, and whose files name none."""
_FOR_DOCUMENTS = ("document", "passage", "corpus")
"""Names of documents' prompts, as sentence-transformers' encode_document looks for them."""


def require_named(model: str, prompt: PromptConfig | None) -> None:
    """Refuse to leave a prompt open for a model that is named as one trained with one before every text.

    Raises:
        ConfigError: saying what to set.
    """
    for name, examples in _ALWAYS_PROMPTED:
        if prompt is None and name.search(model):
            reason = f'was trained with a prompt before every text ({examples}); say which, or "" for none'
            raise ConfigError("encoder.prompt", f"{model} {reason}")


def require_for_documents(prompt: PromptConfig | None, named: Mapping[str, str], default: str | None) -> None:
    """Refuse to leave open whether documents get the prompt that a model's files name for them, without a default.

    Raises:
        ConfigError: saying what to set.
    """
    found = next((name for name in _FOR_DOCUMENTS if named.get(name)), None)
    if prompt is None and not default and found is not None:
        reason = f"the model's files name prompts ({', '.join(sorted(named))}) and no default; for documents, as its"
        raise ConfigError("encoder.prompt", f'{reason} authors embed them, say {{name: {found}}}, or "" for none')


def resolve_pooling(
    asked: Literal["auto", "include", "exclude", "instructor"],
    model: str,
    *,
    include_prompt: bool | None,
    model_type: str,
    dense: bool,
) -> PromptPooling:
    """Decide how pooling treats a prompt: as the job says, then the pooling's own files, then the model's name.

    `include_prompt` is None where the pooling's files do not say. INSTRUCTOR has the same modules as
    sentence-T5 and GTR, so that a T5 with a dense layer remains unknown; all other models include.
    """
    if asked != "auto":
        return asked
    named = bool(_INSTRUCTOR.search(model))
    if include_prompt is None:
        undecided = model_type == "t5" and dense
        return "instructor" if named else "unknown" if undecided else "include"
    if include_prompt:
        return "include"
    return "instructor" if named else "exclude"


def constant_prompt(prompt: PromptConfig | None, named: Mapping[str, str], default: str | None) -> str:
    """Return the prompt all rows share, "" where there is none or each row brings its own.

    Raises:
        ConfigError: the model has no prompt of that name.
    """
    if prompt is None:
        return named.get(default, "") if default else ""
    if prompt.name is None:
        return prompt.text or ""
    if prompt.name not in named:
        known = ", ".join(sorted(named)) or "none"
        raise ConfigError("encoder.prompt.name", f"the model names no prompt {prompt.name!r} (it has: {known})")
    return named[prompt.name]


def join(prompt: str, text: str, pooling: PromptPooling) -> str:
    """Put a prompt before a text, without a separator; INSTRUCTOR strips the text and the whole."""
    return (prompt + text.strip()).strip() if pooling == "instructor" else prompt + text


def counted(prompt: str, pooling: PromptPooling) -> str:
    """Return the prompt as its tokens are counted: alone, and stripped by INSTRUCTOR."""
    return prompt.strip() if pooling == "instructor" else prompt


def left_out(tokens: int, pooling: PromptPooling) -> int:
    """Return how many leading tokens pooling leaves out, for a prompt of `tokens` without its end token.

    INSTRUCTOR leaves a prompt of one token in.
    """
    if pooling == "exclude":
        return tokens
    return tokens if pooling == "instructor" and tokens > 1 else 0


def refuse_unknown(pooling: PromptPooling) -> None:
    """Refuse a prompt where nothing tells what the model's pooling does with it.

    Raises:
        ConfigError: naming the key that decides it.
    """
    if pooling == "unknown":
        raise ConfigError(
            "encoder.prompt_pooling",
            "this T5 with a dense layer may be an INSTRUCTOR (instructor) or a sentence-T5 or GTR (include), which "
            "its files do not tell; say which",
        )
