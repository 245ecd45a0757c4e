"""Which texts go into one request: as many in a row as an API takes, by number and by an estimate of their tokens.

The tokenizer is the API's secret. A byte-level BPE such as OpenAI's has at most one token for each byte of UTF-8, and
about one for four bytes of English, three of code, and two to three of other scripts. Requests are filled at two bytes
a token, reports estimate at four. Where that is too few after all, the API refuses the request and it is halved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

FEWEST_BYTES, TYPICAL_BYTES = 2, 4
"""Bytes a token: what a request is filled by, and what an estimate for people goes by."""


def typical_tokens(size: int) -> int:
    """Estimate the tokens of a text of so many bytes, as it usually is."""
    return -(-size // TYPICAL_BYTES) or 1


def most_tokens(size: int) -> int:
    """Estimate the tokens of a text of so many bytes, at the most in usual text."""
    return -(-size // FEWEST_BYTES) or 1


def cut(sizes: Sequence[int], items: int, tokens: int) -> Iterator[range]:
    """Cut texts of so many bytes each into runs of at most `items` texts and `tokens` estimated tokens.

    A text that has more by itself is a run of its own.
    """
    start = held = 0
    for row, size in enumerate(sizes):
        more = most_tokens(size)
        if row > start and (row - start == items or held + more > tokens):
            yield range(start, row)
            start, held = row, 0
        held += more
    if start < len(sizes):
        yield range(start, len(sizes))
