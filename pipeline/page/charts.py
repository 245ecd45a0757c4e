"""Where the lines and labels of a chart over time lie, in the units of its SVG."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.wording import rounded

WIDTH, HEIGHT = 480, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 30
"""Room for labels around the lines."""
WINDOW_SECONDS, WINDOW_SHARE = 5.0, 0.05
"""A rate is that of a window before its moment: so long, or this share of the run where that is longer."""
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)
_LABELS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A text and where on its axis it stands."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One quantity over time. `line` and `area` are SVG paths; `ready` is where start-up ends, if it did."""

    line: str
    area: str
    x_labels: list[Label]
    y_labels: list[Label]
    ready: float | None
    steady: float | None


def rates(seconds: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Return for each sample how much came a second in the window before it."""
    window = max(WINDOW_SECONDS, WINDOW_SHARE * (seconds[-1] - seconds[0])) if seconds else 0.0
    found = []
    for number, now in enumerate(seconds):
        start = bisect.bisect_left(seconds, now - window)
        elapsed = now - seconds[start]
        found.append((counts[number] - counts[start]) / elapsed if elapsed else 0.0)
    return found


def chart(seconds: Sequence[float], values: Sequence[float], ready: float | None, steady: float) -> Chart | None:
    """Lay a chart out, from the start of the command; None where there are too few samples for a line.

    Args:
        seconds: when each value was measured.
        values: none of them negative.
        ready: when start-up ended.
        steady: a rate to compare with, drawn as a level; 0 for none.
    """
    if len(seconds) < 2:
        return None
    step_x = next((step for step in _STEPS_S if seconds[-1] <= step * _LABELS), 86_400 * math.ceil(seconds[-1] / 432e3))
    step_y = _step(max(*values, steady))
    top = step_y * max(math.ceil(max(*values, steady) / step_y), 1)

    def x(second: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * second / seconds[-1], 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top, 1)

    line = " L".join(f"{x(second)},{y(value)}" for second, value in zip(seconds, values, strict=True))
    return Chart(
        line=f"M{line}",
        area=f"M{x(seconds[0])},{y(0)} L{line} L{x(seconds[-1])},{y(0)} Z",
        x_labels=[Label(at=x(second), text=moment(second)) for second in _up_to(seconds[-1], step_x)],
        y_labels=[Label(at=y(value), text=rounded(value)) for value in _up_to(top, step_y)],
        ready=None if ready is None else x(min(ready, seconds[-1])),
        steady=y(steady) if steady else None,
    )


def moment(seconds: float) -> str:
    """Write a time since the start: m:ss in the first hour, h:mm later."""
    whole = round(seconds)
    minutes, left = divmod(whole, 60) if whole < 3600 else divmod(whole // 60, 60)
    return f"{minutes}:{left:02}" + (" h" if whole >= 3600 else "")


def _step(highest: float) -> float:
    """Return a round distance of labels that takes few of them to the highest value."""
    if highest <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(highest / (_LABELS - 1)))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if highest / (power * factor) <= _LABELS - 1)


def _up_to(end: float, step: float) -> Iterator[float]:
    return (number * step for number in range(math.floor(end / step + 1e-9) + 1))
