"""Where a long text may be cut so that the prefix's tokens are exactly the text's first tokens.

Tokenizing is linear in the text, also where all but the beginning is thrown away. A cut is exact before a
white space that every rule in the tokenizer treats as a boundary; a tokenizer with a rule that is not
known to is never cut for.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tokenizers import Tokenizer

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_WORDS = QWEN_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_BLOOM_WORDS = r" ?[^(\s|[.,!?…。，、।۔،])]+"  # noqa: RUF001 - as published
_WORDS = {QWEN_WORDS, _LLAMA_WORDS, _BLOOM_WORDS}
"""Patterns of published tokenizers of which no match holds a letter or digit, a white space and a letter or digit."""
_WHITE_SPACE_SPLITTERS = {"BertPreTokenizer", "WhitespaceSplit", "Whitespace", "ByteLevel"}
_PRE_TOKENIZERS = _WHITE_SPACE_SPLITTERS | {"Metaspace", "Punctuation", "Digits", "Split"}
_CONTEXT_FREE = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Precompiled", "Nmt"}
_NORMALIZERS = _CONTEXT_FREE | {"Strip", "Prepend", "Replace"}
_RUNS_OF_SPACES = ({"Regex": " {2,}"}, {"Regex": r"\s{2,}"}, {"Regex": r"\s+"}, {"String": " "})

# letters and digits on both sides: marks join the space before them, and symbols may swallow a line end after them
_SPACE = re.compile(r"(?<=[^\W_]) (?=[^\W_])")
_ANY_SPACE = re.compile(r"(?<=[^\W_])[ \n\t](?=[^\W_])")


class TextCutter:
    """Finds prefixes for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._boundary = _boundary(tokenizer)

    def prefix(self, text: str, size: int) -> str:
        """Return a prefix of at least `size` characters, or the whole text where none is exact."""
        if len(text) <= size or self._boundary is None:
            return text
        space = self._boundary.search(text, size)
        return text if space is None else text[: space.start()]


def _boundary(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    splitters, normalizers = _steps(tokenizer.pre_tokenizer), _steps(tokenizer.normalizer)
    known = all(
        step["type"] in _PRE_TOKENIZERS and (step["type"] != "Split" or _is_of_words(step)) for step in splitters
    )
    # special tokens are found before anything else, and one may hold a space; a run of spaces is never cut
    added = [str(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
    spaced = any(re.search(r"\s", token) and not (token.isspace() and len(token) > 1) for token in added)
    if spaced or not known or not all(map(_is_local, normalizers)):
        return None
    if any(_splits_at_white_space(step) for step in splitters):
        return _ANY_SPACE
    return _SPACE if any(step["type"] == "Metaspace" and step.get("split", True) for step in splitters) else None


def _splits_at_white_space(step: dict[str, Any]) -> bool:
    return step["type"] == "Split" or (step["type"] in _WHITE_SPACE_SPLITTERS and bool(step.get("use_regex", True)))


def _is_of_words(step: dict[str, Any]) -> bool:
    """Tell a split whose pieces are the matches of a known pattern, and what lies between them."""
    return step["pattern"].get("Regex") in _WORDS and step["behavior"] == "Isolated" and not step["invert"]


def _is_local(normalizer: dict[str, Any]) -> bool:
    if normalizer["type"] == "Replace":
        pattern = normalizer["pattern"]
        return pattern in _RUNS_OF_SPACES or len(pattern.get("String", "")) == 1
    return normalizer["type"] in _NORMALIZERS


def _steps(component: Any) -> list[dict[str, Any]]:
    """Return the flat list of steps a normalizer or pre-tokenizer is made of."""
    return [] if component is None else _flat(json.loads(component.__getstate__()))


def _flat(step: dict[str, Any]) -> list[dict[str, Any]]:
    nested = step.get("normalizers") or step.get("pretokenizers")
    return [inner for part in nested for inner in _flat(part)] if nested else [step]
