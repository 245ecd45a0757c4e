"""Which rows of a plan stand for all of them: some units, evenly spread, and some rows of each."""

from __future__ import annotations

from math import ceil

from pipeline.records import Unit

ROWS = 4096
FEWEST_UNITS, MOST_UNITS = 16, 256


def sample_units(units: list[Unit]) -> list[tuple[Unit, int]]:
    """Choose units and how many rows to take of each; a function of the plan alone.

    They add up to about `ROWS`, or to all rows of a plan that has no more in at most `MOST_UNITS` units.
    """
    filled = [unit for unit in units if unit.rows]
    rows = sum(unit.rows for unit in filled)
    if not rows:
        return []
    wanted = min(max(FEWEST_UNITS, ceil(ROWS * len(filled) / rows)), MOST_UNITS, len(filled))
    chosen = [filled[place * len(filled) // wanted] for place in range(wanted)]
    total = sum(unit.rows for unit in chosen)
    return [(unit, min(unit.rows, ceil(ROWS * unit.rows / total))) for unit in chosen]
