"""Scripts of texts: Unicode's own names of letters agree, and a text has the script of most of its letters."""

from __future__ import annotations

import unicodedata

import pytest

from pipeline.corpus.scripts import FIRST_CHARS, SCRIPTS, count_scripts, script_codes

NAMES = {
    "CJK UNIFIED": "Han",
    "CJK COMPATIBILITY": "Han",
    "HIRAGANA": "Kana",
    "KATAKANA": "Kana",
    **{script.upper(): script for script in SCRIPTS if script not in ("Han", "Kana", "Other", "none")},
}


def scripts(*texts: str) -> list[str]:
    return [SCRIPTS[code] for code in script_codes(texts)]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("plain words", "Latin"),
        ("Grüße aus Köln", "Latin"),
        ("Tiếng Việt có dấu", "Latin"),
        ("Привет, мир", "Cyrillic"),
        ("καλημέρα", "Greek"),
        ("漢字文本", "Han"),
        ("日本語のテキストです", "Kana"),
        ("한국어 텍스트", "Hangul"),
        ("مرحبا بالعالم", "Arabic"),
        ("שלום עולם", "Hebrew"),
        ("नमस्ते दुनिया", "Devanagari"),
        ("สวัสดี", "Thai"),
        ("ᏣᎳᎩ", "Other"),
        ("12 + 3 = 15!", "none"),
        ("…—“”", "none"),
        ("\U0001f600\U0001f600", "none"),
        ("𠀀𠀁", "Han"),
        ("\U0010ffff", "none"),
        ("the word привет", "Latin"),
        ("the слово привет", "Cyrillic"),
        ("", "none"),
    ],
)
def test_a_text_has_the_script_of_most_of_its_letters(text, script):
    assert scripts(text) == [script]


def test_only_the_beginning_is_looked_at():
    assert scripts("a" * FIRST_CHARS + "я" * 500) == ["Latin"]
    assert scripts("1" * FIRST_CHARS + "я") == ["none"]


def test_texts_do_not_run_into_each_other():
    texts = ["é", "12", "яяя", "", "漢", "x", "я"]
    assert scripts(*texts) == ["Latin", "none", "Cyrillic", "none", "Han", "Latin", "Cyrillic"]
    assert scripts() == []


def test_they_are_counted_by_name():
    assert count_scripts(script_codes(["a", "b", "я", "1"])) == {"Latin": 2, "Cyrillic": 1, "none": 1}


def test_letters_have_the_script_that_unicode_names_them_after():
    letters = [chr(point) for point in range(0x10000) if chr(point).isalpha()]
    wrong = []
    for letter, script in zip(letters, scripts(*letters), strict=True):
        name = unicodedata.name(letter, "")
        expected = next((script for word, script in NAMES.items() if name.startswith(f"{word} ")), script)
        if script != expected:
            wrong.append(f"{name}: {script}")
    assert wrong == []
