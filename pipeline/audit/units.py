"""Whether a plan's units can be right at all: numbered, disjoint, and each file covered from its first row."""

from __future__ import annotations

from pipeline.plan import Plan


def unit_faults(plan: Plan) -> list[str]:
    """Check that units are numbered from 0 and that each file's slices follow each other without a gap."""
    faults = [
        f"the plan's unit at place {place} has number {unit.number}"
        for place, unit in enumerate(plan.units)
        if unit.number != place
    ]
    next_row: dict[str, int] = {}
    previous = None
    for unit in plan.units:
        if len({piece.source.path for piece in unit.slices}) < len(unit.slices):
            faults.append(f"unit {unit.number} plans two slices of one file")
        for piece in unit.slices:
            path = piece.source.path
            expected = next_row.get(path, 0)
            if piece.first_row != expected or piece.rows < 0:
                faults.append(f"unit {unit.number} plans {piece}, expected from row {expected}")
            elif path in next_row and piece.source != previous:
                faults.append(f"unit {unit.number} plans {piece} apart from the rows before them")
            next_row[path] = piece.first_row + piece.rows
            previous = piece.source
    limit = plan.requested["input"]["limit"]
    if limit is not None and plan.rows > limit:
        faults.append(f"the plan has {plan.rows} rows, the job asked for the first {limit}")
    return faults
