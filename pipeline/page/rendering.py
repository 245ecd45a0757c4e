"""What the page shows, out of the report that `report.json` holds: nothing else goes in, so the two never differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.page import charts
from pipeline.records import BLOCKED, RATE_LIMIT, STARVED
from pipeline.wording import amount, duration, size

if TYPE_CHECKING:
    from jinja2 import Template

FOLDER = Path(__file__).parent
MOST = {"warnings": 50, "hosts": 50, "devices": 50}
"""Entries shown of lists that grow with the cluster or with bad luck; `report.json` has them all."""
ERROR_CHARACTERS = 4000
_STOPPED = 8
_DEVICE_STAGES = {"encode": "encoding", STARVED: "waiting for texts", BLOCKED: "waiting for commits"}
_OTHER_STAGES = {
    "read": "reading and cleaning",
    "tokenize": "tokenizing",
    "commit": "building and committing",
    RATE_LIMIT: "of encoding: waiting for rate limits",
}
_HELD_UP = {"read": "reading and tokenizing", "encode": "encoding", "commit": "committing", "start-up": "start-up"}


def render(report: Mapping[str, Any]) -> str:
    """Make the page of a report, as `asdict` gives it; whatever users named is escaped."""
    now = report["this_run"]
    unnamed = {stage: stage for stage in now["stage_seconds"] if stage not in {**_DEVICE_STAGES, **_OTHER_STAGES}}
    return _template().render(
        report=report,
        now=now,
        status=_status(report),
        error=(report["error"] or "")[:ERROR_CHARACTERS],
        plots=_plots(now),
        samples=_samples(now["throughput"]),
        device_stages=_stages(now["stage_seconds"], _DEVICE_STAGES),
        other_stages=_stages(now["stage_seconds"], {**_OTHER_STAGES, **unnamed}),
        longest_stage=max(now["stage_seconds"].values(), default=0),
        held_up=_HELD_UP.get(now["bottleneck"]),
        most_rows=max((found["rows"] for found in now["token_lengths"]), default=0),
        codes=sorted({*report["totals"]["dead_by_code"], *now["dead_by_code"]}),
        parameters=list(_flat(report["parameters"])),
        most=MOST,
        charts=charts,
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only the end of a run needs them

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,  # a figure that is not there is an error, and no gap
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"number": _number, "rate": _rate, "share": _share, "size": size, "amount": amount}
    environment.filters.update(filters, duration=duration, moment=charts.moment, day=_day)
    return environment.get_template("report.html.jinja")


def _status(report: Mapping[str, Any]) -> dict[str, str]:
    if report["complete"]:
        return {"word": "complete", "kind": "good"}
    if report["exit_code"] == _STOPPED:
        return {"word": "stopped", "kind": "stopped"}
    return {"word": "failed", "kind": "bad"}


def _plots(now: Mapping[str, Any]) -> list[dict[str, Any]]:
    course = now["throughput"]
    found = []
    for name in ("rows", "tokens"):
        steady = now[f"steady_{name}_per_s"]
        values = charts.rates(course["seconds"], course[name])
        plot = charts.chart(course["seconds"], values, now["startup_seconds"], steady)
        if plot is not None:
            found.append({"name": name, "chart": plot, "steady": steady, "highest": max(values)})
    return found


def _samples(course: Mapping[str, Sequence[float]]) -> list[tuple[float, ...]]:
    """Return (seconds, rows, tokens, rows a second, tokens a second), one a sample."""
    seconds, rows, tokens = course["seconds"], course["rows"], course["tokens"]
    counts = [int(count) for count in rows], [int(count) for count in tokens]
    return list(zip(seconds, rows, tokens, *(charts.rates(seconds, count) for count in counts), strict=True))


def _stages(seconds: Mapping[str, float], names: Mapping[str, str]) -> list[tuple[str, str, float]]:
    """Return those stages that took place: name, what it is called, seconds."""
    return [(stage, called, seconds[stage]) for stage, called in names.items() if stage in seconds]


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Name each leaf by its path, with its value as it would stand in JSON."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _day(moment: str) -> str:
    return moment.replace("T", " ").replace("+00:00", " UTC")


def _number(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _share(part: float | None, whole: float = 1.0) -> str:
    if part is None or not whole:
        return "\N{EN DASH}"
    return f"{part / whole:.1%}"
