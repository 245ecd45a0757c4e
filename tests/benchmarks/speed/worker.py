"""One process of an engine: loads it, then answers requests, one JSON object a line.

A request has `do`: `take` reads the texts of a cell and keeps this process's share, `check` encodes a few rows to a
file, `encode` encodes the share. What fails ends the process, its reason on stderr.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from benchmarks.speed.engines import ENGINES, Setup


def share(texts: list[str], part: int, parts: int) -> list[str]:
    """Deal texts by length, so that each process has as much to do; the order of the input is kept."""
    longest_first = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    return [texts[row] for row in sorted(longest_first[part::parts])]


def own_stdout() -> TextIO:
    """Keep what libraries print out of the answers."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Serve until stdin ends."""
    answers = own_stdout()
    kind, setup = sys.argv[1], Setup(**json.loads(sys.argv[2]))
    engine = ENGINES[kind](setup)
    texts: list[str] = []
    mine: list[str] = []

    def answer(request: dict[str, Any]) -> None:
        nonlocal texts, mine
        options = request.get("options", {})
        match request["do"]:
            case "take":
                texts = json.loads(Path(request["path"]).read_text())
                mine = share(texts, request["part"], request["parts"])
            case "check":
                np.save(request["into"], engine.encode([texts[row] for row in request["rows"]], **options))
            case "encode":
                engine.encode(mine, **options)

    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        answer(json.loads(line))
        print(json.dumps({"done": True}), file=answers)


if __name__ == "__main__":
    main()
