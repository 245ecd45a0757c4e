"""Which rows of a plan stand for all of them: some units, evenly spread, and some rows of each."""

from __future__ import annotations

from math import ceil

from pipeline.records import Unit

FEWEST_ROWS, MOST_ROWS, SHARE = 512, 4096, 8
"""An eighth of the rows within bounds: what a sample costs is encoded twice."""
FEWEST_UNITS, MOST_UNITS = 16, 256


def sample_units(units: list[Unit]) -> list[tuple[Unit, int]]:
    """Choose units and how many rows to take of each; a function of the plan alone.

    They add up to about an eighth of the plan's rows, but to `FEWEST_ROWS` where it has so many, and to `MOST_ROWS` at
    the most.
    """
    filled = [unit for unit in units if unit.rows]
    planned = sum(unit.rows for unit in filled)
    if not planned:
        return []
    rows = min(max(planned // SHARE, FEWEST_ROWS), MOST_ROWS)
    wanted = min(max(FEWEST_UNITS, ceil(rows * len(filled) / planned)), MOST_UNITS, len(filled))
    chosen = [filled[place * len(filled) // wanted] for place in range(wanted)]
    total = sum(unit.rows for unit in chosen)
    return [(unit, min(unit.rows, ceil(rows * unit.rows / total))) for unit in chosen]
