"""The picture of a run: tokens a second of every contender, a panel a cell, the peak as the limit of each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from benchmarks.speed.table import rate

OURS, PEERS, LIMIT = "#1f6f5c", "#b9c3c0", "#c0392b"
COLUMNS, WIDTH, BAR = 2, 12, 0.32


def draw(found: dict[str, Any], target: Path) -> None:
    """Write one SVG."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found["rows"]:
        cells.setdefault((row["model"], row["mix"]), []).append(row)
    lines = -(-len(cells) // COLUMNS)
    tallest = max(len(rows) for rows in cells.values())
    size = (WIDTH, lines * (tallest * BAR + 0.9) + 0.8)
    figure, axes = plt.subplots(lines, COLUMNS, figsize=size, squeeze=False, layout="constrained")
    for axis, ((model, mix), rows) in zip(axes.flat, cells.items(), strict=False):
        _panel(axis, rows, found["peak"])
        axis.set_title(f"{model}, {mix}", loc="left", fontsize=10, fontweight="bold")
    for axis in list(axes.flat)[len(cells) :]:
        axis.set_axis_off()
    limits = " and, further right, ".join(found["peak"])
    machine = found["machine"]
    figure.suptitle(
        f"Thousands of tokens a second, medians of {found['rounds']}; dashed: the matrix-product peak, {limits}\n"
        f"{machine['cpu']}, {machine['cores']} cores, {found['date']}",
        fontsize=9,
    )
    figure.savefig(target, metadata={"Date": None})


def _panel(axis: Any, rows: list[dict[str, Any]], peak: dict[str, float]) -> None:
    shown = [row for row in rows if not row["failed"]][::-1]
    rates = [median(rate(row)) / 1e3 for row in shown]
    colours = [OURS if row["label"].startswith("embatch") else PEERS for row in shown]
    spread = [[mid - min(rate(row)) / 1e3 for mid, row in zip(rates, shown, strict=True)],
              [max(rate(row)) / 1e3 - mid for mid, row in zip(rates, shown, strict=True)]]  # fmt: skip
    bars = axis.barh([row["label"] for row in shown], rates, xerr=spread, color=colours, error_kw={"elinewidth": 1})
    axis.bar_label(bars, labels=[f"{value:,.1f}" for value in rates], padding=6, fontsize=8)
    limits = [value * rows[0]["tokens"] / rows[0]["flops"] / 1e3 for value in peak.values()]
    for limit in limits:
        axis.axvline(limit, color=LIMIT, linestyle="--", linewidth=1)
    axis.set_xlim(0, 1.12 * max([*limits, *rates]))
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
