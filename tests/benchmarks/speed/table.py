"""The page of results: written by the run from its own figures, never by hand."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.speed import contenders, lineup

Row = dict[str, Any]
QUICK = "**A smoke run (`--quick`): a handful of texts, one turn each. Nothing follows from its figures.**"
PLOT = "![Tokens a second of each engine](speed.svg)"


def page(found: dict[str, Any]) -> str:
    """Return docs/benchmarks/speed.md."""
    rows = found["rows"]
    parts = [
        "# Speed",
        "Written by `make bench` from [speed.json](speed.json); edits are lost.",
        _conditions(found),
        *([QUICK] if found["quick"] else []),
        PLOT,
        "## Ratios",
        _ratios(rows),
    ]
    for model, mix in dict.fromkeys((row["model"], row["mix"]) for row in rows):
        cell = [row for row in rows if (row["model"], row["mix"]) == (model, mix)]
        sizes = f"{cell[0]['texts']:,} texts of {cell[0]['tokens'] / cell[0]['texts']:.0f} tokens on average"
        parts += [f"## {model}, {mix}", f"{sizes}.", _cell(cell, found["peak"])]
    return "\n\n".join([*parts, "## Settings", _settings(rows), "## What is measured", NOTES]) + "\n"


NOTES = """\
Contenders run in processes of their own and take turns, A B C A B C; figures are medians over the rounds, in brackets
the slowest and the fastest. Texts are the same for all. Encoders alone are loaded before and have encoded a few texts;
their time is from handing over the texts to the last vector, tokenization included. Tokens are those the model reads:
after truncation, special tokens and prompt included, no padding. Before its time counts each contender's vectors of
eight texts are compared with sentence-transformers in float32: the lowest cosine and the largest difference are in the
table, and a cosine below 0.98 is a failure.

- `short`: passages as they are. `mixed`: the passages joined and cut to log-normal lengths, median 90, at most 512
  tokens of MiniLM's tokenizer. `long`: every text fills the model's limit (256 tokens for MiniLM, 512 for the others).
  Lengths come in groups of 32 alike, evenly over their distribution and in random order, as sorting a large corpus
  gives them: padding costs its users nearly nothing here. At least three groups a cell.
- `minilm` has its true weights. The others have the sizes and tokenizer types of the models they are named after,
  random weights, and a vocabulary of at most 6,000 trained on the demo corpus. `instructor-base` has an instruction
  before each text that pooling leaves out.
- Share of the peak: FLOPs without padding (2 L (4 d inner + 2 d ff) a token, 4 S inner L a token of a text of S
  tokens) over the best rate of a plain matrix product on all cores at once, of the dtype named.
- sentence-transformers' best is the fastest of a short trial: float32, and bfloat16 where the processor has it, batch
  8 and 16, one process with torch's threads or one process of one thread a core. The trial is repeated for each mix
  of MiniLM; the other models keep what won on `mixed`.
"""


def _conditions(found: dict[str, Any]) -> str:
    machine, peak = found["machine"], found["peak"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    peaks = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, rate in peak.items())
    memory = f"{machine['memory_gib']} GiB"
    load = f"load average before the run {machine['load_before']:.1f}"
    lines = (
        f"{found['date']}, commit {machine['commit']}, `{found['command']}`, {found['seconds']} s in all",
        f"{machine['cpu']}, {machine['cores']} cores, {', '.join(machine['flags'])}; {memory}",
        f"{machine['system']}; {load}",
        versions,
        f"matrix-product peak of all cores: {peaks}",
        *(
            f"of an earlier run on the same machine ({one['date']}, commit {one['commit']}, `{one['command']}`, "
            f"{one['seconds']} s): {'; '.join(one['cells'])}"
            for one in found["kept"]
        ),
    )
    return "\n".join(f"- {line}" for line in lines)


def rate(row: Row) -> list[float]:
    """Tokens a second of each turn."""
    return [turn["rate"] or row["tokens"] / turn["encoding"] for turn in row["turns"]]


def _cell(rows: list[Row], peak: dict[str, float]) -> str:
    programs = any(turn["whole"] for row in rows for turn in row["turns"])
    base = _base(rows)
    heads = ["", "tokens/s", f"to {base['label']}" if base else "", "share of the peak", "cosine", "difference"]
    if programs:
        heads += ["whole command", "start-up"]
    lines = [line(heads), line(["---"] * len(heads))]
    for row in rows:
        if row["failed"]:
            lines.append(line([row["label"], f"failed: {row['failed']}", *[""] * (len(heads) - 2)]))
            continue
        rates = rate(row)
        dtype = row["dtype"] or ("bfloat16" if "bfloat16" in peak and row["label"] == contenders.COMMAND else "float32")
        share = median(rates) / row["tokens"] * row["flops"] / peak[dtype]
        cells = [
            row["label"],
            f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
            ratio(row, base),
            f"{share:.0%} of {dtype}",
            f"{row['cosine']:.6f}",
            f"{row['difference']:.1e}",
        ]
        lines.append(line([*cells, *(_command(row) if programs else [])]))
    return "\n".join(lines)


def _command(row: Row) -> list[str]:
    whole = [turn["whole"] for turn in row["turns"] if turn["whole"]]
    if not whole:
        return ["", ""]
    startup = median(turn["startup"] for turn in row["turns"])
    return [f"{median(whole):.1f} s ({min(whole):.1f} to {max(whole):.1f})", f"{startup:.1f} s"]


def _base(rows: list[Row]) -> Row | None:
    """Return what a cell's rates are compared with."""
    wanted = (contenders.REFERENCE, contenders.LOOP, contenders.BEST)
    standing = {row["label"]: row for row in rows if not row["failed"]}
    return next((standing[label] for label in wanted if label in standing), None)


def _ratios(rows: list[Row]) -> str:
    """Return embatch's rate over each peer's, a line a cell; for programs, steady rates and whole commands."""
    standing = [row for row in rows if not row["failed"]]
    cells = dict.fromkeys((row["model"], row["mix"]) for row in standing if row["mix"] != lineup.END_TO_END)
    peers = dict.fromkeys(row["label"] for row in standing if row["dtype"] and not _is_ours(row))
    lines = [line(["embatch's encoder", *(f"to {peer}" for peer in peers)])]
    lines.append(line(["---"] * (len(peers) + 1)))
    for cell in cells:
        there = {row["label"]: row for row in standing if (row["model"], row["mix"]) == cell}
        for ours in (row for row in there.values() if _is_ours(row)):
            ratios = [ratio(ours, there.get(peer)) for peer in peers]
            lines.append(line([f"{', '.join(cell)}, {ours['dtype']}", *ratios]))
    return "\n".join(lines) + "\n\n" + "\n".join(_end_to_end(standing))


def _end_to_end(rows: list[Row]) -> list[str]:
    programs = {row["label"]: row for row in rows if row["mix"] == lineup.END_TO_END}
    ours = programs.pop(contenders.COMMAND, None)
    if ours is None:
        return []
    lines = ["End to end, `embatch run` (MiniLM, short texts):", ""]
    for label, row in programs.items():
        whole = ""
        if row["turns"][0]["whole"]:
            times = [median(turn["whole"] for turn in one["turns"]) for one in (row, ours)]
            whole = f", whole commands {times[0] / times[1]:.2f}"
        lines.append(f"- to {label}: {ratio(ours, row)}{whole}")
    alone = [row for row in rows if (row["model"], row["mix"]) == ("minilm", "short") and not _is_ours(row)]
    if alone:
        best = max(alone, key=lambda row: median(rate(row)))
        lines.append(f"- to the fastest peer engine alone on short texts ({best['label']}): {ratio(ours, best)}")
    return lines


def _is_ours(row: Row) -> bool:
    return row["label"].startswith(contenders.OURS)


def ratio(ours: Row, theirs: Row | None) -> str:
    """Return how many times as fast as another a contender is; nothing where there is no other."""
    return f"{median(rate(ours)) / median(rate(theirs)):.2f}" if theirs else ""


def _settings(rows: list[Row]) -> str:
    """Return what each contender ran with; one that differs between cells is listed with them."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found.setdefault((row["label"], row["settings"]), []).append(f"{row['model']} {row['mix']}")
    labels = [label for label, _ in found]
    lines = []
    for (label, settings), cells in found.items():
        where = f" ({'; '.join(cells)})" if labels.count(label) > 1 else ""
        lines.append(f"- {label}{where}: {settings}")
    return "\n".join(lines)


def line(cells: list[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"
