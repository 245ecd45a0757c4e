"""Which script a text is written in: that of most letters among its first ones. A count for people, no judgement.

Letters are what Python calls alphabetic, their scripts are told by Unicode's blocks. Hiragana and Katakana are one,
`Kana`; letters of blocks that are not listed are `Other`; a text without a letter has none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

FIRST_CHARS = 128
"""Of a text are looked at."""

_BLOCKS = {
    "Latin": "41-2FF 1D00-1DBF 1E00-1EFF 2071-214F 2160-2188 2C60-2C7F A720-A7FF AB30-AB6F FB00-FB06 FF21-FF5A",
    "Greek": "370-3FF 1D26-1D2A 1D5D-1D61 1D66-1D6A 1DBF 1F00-1FFF AB65",
    "Cyrillic": "400-52F 1C80-1C8F 1D2B 1D78 2DE0-2DFF A640-A69F",
    "Armenian": "530-58F FB13-FB17",
    "Hebrew": "590-5FF FB1D-FB4F",
    "Arabic": "600-6FF 750-77F 870-8FF FB50-FDFF FE70-FEFF",
    "Devanagari": "900-97F A8E0-A8FF",
    "Bengali": "980-9FF",
    "Gurmukhi": "A00-A7F",
    "Gujarati": "A80-AFF",
    "Oriya": "B00-B7F",
    "Tamil": "B80-BFF",
    "Telugu": "C00-C7F",
    "Kannada": "C80-CFF",
    "Malayalam": "D00-D7F",
    "Sinhala": "D80-DFF",
    "Thai": "E00-E7F",
    "Lao": "E80-EFF",
    "Tibetan": "F00-FFF",
    "Myanmar": "1000-109F A9E0-A9FF AA60-AA7F",
    "Georgian": "10A0-10FF 1C90-1CBF 2D00-2D2F",
    "Hangul": "1100-11FF 3130-318F A960-A97F AC00-D7FF FFA0-FFDC",
    "Ethiopic": "1200-139F 2D80-2DDF AB00-AB2F",
    "Khmer": "1780-17FF",
    "Mongolian": "1800-18AF",
    "Kana": "3040-30FF 31F0-31FF FF66-FF9F",
    "Han": "2E80-2FDF 3005-3007 3021-3029 3400-4DBF 4E00-9FFF F900-FAFF 20000-3FFFF",
}
"""In hexadecimal; a later one counts where two overlap."""
SCRIPTS = (*_BLOCKS, "Other", "none")
LATIN, OTHER, NONE = 0, len(_BLOCKS), len(_BLOCKS) + 1
_POINTS = 0x40000
"""Code points of the planes that have letters."""
_LETTER = re.compile("[A-Za-z]")


def script_codes(texts: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return for each text its place in `SCRIPTS`, uint8 [n]; of scripts with as many letters the first one listed."""
    firsts = [text[:FIRST_CHARS] for text in texts]
    codes = np.full(len(texts), LATIN, np.uint8)
    odd = []
    for place, first in enumerate(firsts):
        # most texts by far, and a hundred times faster
        if not first.isascii():
            odd.append(place)
        elif not _LETTER.search(first):
            codes[place] = NONE
    if odd:
        codes[odd] = _counted([firsts[place] for place in odd])
    return codes


def count_scripts(codes: npt.NDArray[np.uint8]) -> dict[str, int]:
    """Count texts by the name of their script."""
    counts = np.bincount(codes, minlength=len(SCRIPTS))
    return {name: int(count) for name, count in zip(SCRIPTS, counts, strict=True) if count}


def _counted(texts: list[str]) -> npt.NDArray[np.uint8]:
    """Count each text's letters by script."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", errors="surrogatepass"), "<u4")
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    found = _script_table()[np.minimum(points, _POINTS - 1)].astype(np.intp)
    counts = np.bincount(rows * len(SCRIPTS) + found, minlength=len(texts) * len(SCRIPTS)).reshape(len(texts), -1)
    codes: npt.NDArray[np.uint8] = counts[:, :NONE].argmax(axis=1).astype(np.uint8)
    codes[counts[:, :NONE].sum(axis=1) == 0] = NONE
    return codes


@lru_cache(maxsize=1)
def _script_table() -> npt.NDArray[np.uint8]:
    """Return the script of each code point, `NONE` for what is no letter, uint8 [code points]."""
    table = np.full(_POINTS, OTHER, np.uint8)
    for code, blocks in enumerate(_BLOCKS.values()):
        for block in blocks.split():
            first, _, last = block.partition("-")
            table[int(first, 16) : int(last or first, 16) + 1] = code
    table[[not chr(point).isalpha() for point in range(_POINTS)]] = NONE
    return table
