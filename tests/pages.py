"""The page of a run's report, taken apart by a parser, and held against the report beside it."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

LINKING = ("src", "href", "action", "srcset", "xlink:href", "data", "poster")


class Page(HTMLParser):
    """A page's tags, links, text, and figures by name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.figures: dict[str, str] = {}
        self.words = self.style = ""
        self._name: str | None = None
        self._styling = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.links += [value for name, value in attrs if name in LINKING]
        self._name = dict(attrs).get("data-figure")
        self._styling = tag == "style"

    def handle_endtag(self, tag):
        self._name, self._styling = None, False

    def handle_data(self, data):
        if self._styling:
            self.style += data
            return
        self.words += data
        if self._name is not None:
            self.figures[self._name] = data


def report_and_page(output: str, run: int | None = None) -> tuple[dict[str, Any], Page]:
    """Read the report and the page of a run, of the last one unless told otherwise, and compare them."""
    folder = Path(output, "_job")
    stem = folder / "report" if run is None else folder / f"runs/{run:06d}.report"
    report = json.loads(Path(f"{stem}.json").read_text())
    page = Page(Path(f"{stem}.html").read_text())
    agree(report, page)
    return report, page


def agree(report: dict[str, Any], page: Page) -> None:
    """Each figure on the page is the one of the report."""
    assert len(page.figures) > 10
    for name, text in page.figures.items():
        assert shown(text) == value_at(report, name), name


def shown(text: str) -> float:
    """Read a number as people do."""
    number = re.fullmatch(r"([\d,]+(?:\.\d+)?)(%?)", text)
    assert number, text
    return round(float(number[1].replace(",", "")), 1) / (100 if number[2] else 1)


def value_at(report: dict[str, Any], name: str) -> float:
    """Look a figure up by its path, rounded as it is shown."""
    value: Any = report
    for step in name.split("."):
        value = value[int(step)] if isinstance(value, list) else value.get(step, 0)
    return round(value, 3) if name.endswith("fill") else round(float(value), 1)


def needs_nothing(page: Page) -> None:
    """Nothing of it is fetched from anywhere, and nothing of it runs."""
    assert [link for link in page.links if not link.startswith("data:")] == []
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert not {"script", "iframe", "object", "img", "base", "form"} & page.tags.keys()
