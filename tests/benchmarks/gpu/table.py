"""The page of results, written by the run from its own figures; the one table comes last."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.gpu.contest import NO_TIME, OURS, PEER, PLAIN
from benchmarks.speed.table import Row, line, rate, ratio

SMOKE = "**A smoke run ({why}): nothing follows from its figures.**"
NOTES = """\
All run in one process, one engine's turn after the other's, A B C A B C, on the same texts; figures are medians over
the turns, in brackets the slowest and the fastest. `from token ids` is the encoder alone: from token ids on the host
to the last vector on the host, sentence-transformers through its own `encode` with its tokenizer replaced by
look-ups. `from texts` has the tokenizer inside, on all cores, in embatch's case before the encoder and not beside it.
`embatch run` is the whole command on a local Ray, and its rate that after start-up, as its report says.

- Before anything is timed, each engine's vectors of eight texts are compared with sentence-transformers in float32 on
  the same device, and again among all the others of its first turn and each later one. A cosine below 0.98, or a
  distance of half of that between two texts, is a failure, and no figure is given.
- Models have the sizes and tokenizer types of those they are named after, random weights, and a vocabulary of at most
  6,000 trained on the demo corpus. An INSTRUCTOR has an instruction before each text that pooling leaves out.
- Lengths in tokens of the model, special ones and instruction included: all 128, all 512, or log-normal with median
  90 from 1 to 512, evenly over the distribution, in random order.
- Peers run with the fastest of a few settings tried before on the same texts: sentence-transformers with 32 to 512
  texts a batch, vectors kept on the device until the end, float16 and bfloat16 (T5: bfloat16); transformers with
  length-sorted batches of 8,192 to 131,072 padded tokens. Sizes rise until one is slower. What starts from texts
  takes what won on tokens.
- Share of the peak: FLOPs without padding (2 L (4 d inner + 2 d ff) a token, 4 S inner L a token of a text of S
  tokens) over the measured rate of a plain square product of the same dtype.
- Each cell has a share of the time that is left: a late one has fewer turns or texts, or is left out."""


def page(found: dict[str, Any]) -> str:
    """Return docs/benchmarks/gpu.md."""
    parts = [
        "# One GPU",
        "Written by `make bench-gpu` from [gpu.json](gpu.json); edits are lost.",
        _conditions(found),
        *([SMOKE.format(why=found["smoke"])] if found["smoke"] else []),
        *(["## One forward", _profile(found["profile"])] if found["profile"] else []),
        "## Settings",
        _settings(found["rows"]),
        "## What is measured",
        NOTES,
        "## Results",
        results(found),
    ]
    return "\n\n".join(parts) + "\n"


def results(found: dict[str, Any]) -> str:
    """Return the table."""
    heads = ["model", "lengths", "", "tokens/s", "share of the peak", f"to {PEER}", f"to {PLAIN}"]
    heads += ["to embatch's encoder alone", "cosine", "largest difference", "turns"]
    lines = [line(heads), line(["---"] * len(heads))]
    for row in found["rows"]:
        named = [row["model"], row["mix"], row["label"]]
        shown = _figures(row, found) if not row["failed"] else [_reason(row["failed"])]
        lines.append(line([*named, *shown, *[""] * (len(heads) - len(named) - len(shown))]))
    for one in found["left_out"]:
        named = [one["model"], one["mix"], "", f"left out: {one['why']}"]
        lines.append(line([*named, *[""] * (len(heads) - len(named))]))
    return "\n".join(lines)


def _figures(row: Row, found: dict[str, Any]) -> list[str]:
    beside = {
        other["label"]: other
        for other in found["rows"]
        if (other["model"], other["mix"]) == (row["model"], row["mix"]) and not other["failed"]
    }
    ids = row["label"].endswith("token ids")
    rates, ours = rate(row), row["label"].startswith(OURS)
    share = median(rates) * row["flops"] / row["tokens"] / found["limits"]["flops_per_s"][row["dtype"]]
    peer = beside.get(f"{PEER}, from {'token ids' if ids else 'texts'}")
    plain = beside.get(f"{PLAIN}, from token ids") if ids else None
    return [
        f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
        f"{share:.1%} of {row['dtype']}",
        ratio(row, peer),
        ratio(row, plain),
        ratio(row, beside.get(f"{OURS}, from token ids")) if ours and not ids else "",
        f"{row['cosine']:.6f}",
        f"{row['difference']:.1e}",
        str(len(row["turns"])),
    ]


def _reason(failed: str) -> str:
    return f"left out: {failed}" if failed == NO_TIME else f"failed: {failed.replace('|', '/')}"


def _conditions(found: dict[str, Any]) -> str:
    machine, device, limits = found["machine"], found["device"], found["limits"]
    sizes = [f"{name.replace('_', ' ')} {value}" for name, value in device.items() if name != "name" and value]
    load = [f"{name} {value}" for name, value in found["under_load"].items()]
    peaks = ", ".join(f"{value / 1e12:,.2f} TFLOP/s in {dtype}" for dtype, value in limits["flops_per_s"].items())
    run = f"{found['date']}, commit {machine['commit']}, `{found['command']}`"
    host = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {machine['system']}"
    copied = f"copy of {limits['copied_bytes'] / 2**20:,.0f} MiB: {limits['copy_bytes_per_s'] / 1e12:.3f} TB/s"
    lines = (
        f"{run}, {found['seconds']} s of {found['budget']:.0f} s, at most {found['rounds']} turns a contender",
        ", ".join([device["name"], *sizes]),
        f"while it multiplies: {', '.join(load)}" if load else "clocks and power: not readable here",
        f"{host}; load average before the run {machine['load_before']:.1f}",
        ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        f"product of {limits['side']} x {limits['side']} matrices: {peaks}",
        f"{copied} read and written",
    )
    return "\n".join(f"- {text}" for text in lines)


def _profile(found: dict[str, Any]) -> str:
    heads = ["kernel", "calls", "share of their time"]
    given = f"{found['texts']:,} texts, {found['tokens']:,} tokens in {found['batches']} batches"
    times = f"{found['wall_ms']:.2f} ms, of which {found['gap']:.1%} without a kernel at work"
    lines = [
        f"embatch's encoder, {found['model']}, {found['mix']}: {given}. {times}; {found['calls']:,} calls.",
        "",
        line(heads),
        line(["---"] * len(heads)),
    ]
    for kernel in found["kernels"]:
        name = kernel["name"].replace("|", "\\|")
        lines.append(line([f"`{name}`", f"{kernel['calls']:,}", f"{kernel['share']:.1%}"]))
    return "\n".join(lines)


def _settings(rows: list[Row]) -> str:
    cells: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        cells.setdefault((row["label"], row["settings"]), []).append(f"{row['model']} {row['mix']}")
    return "\n".join(f"- {label}: {settings} ({'; '.join(where)})" for (label, settings), where in cells.items())
