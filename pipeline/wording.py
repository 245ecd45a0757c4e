"""How quantities are written for people, on a terminal as on a page."""

from __future__ import annotations

from datetime import timedelta


def duration(seconds: float | None) -> str:
    """Write seconds as h:mm:ss; a question mark while unknown."""
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))


def size(count: float) -> str:
    """Write bytes in the unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def rounded(count: float) -> str:
    """Write a number that is an estimate: three digits and k, M, G or T."""
    for unit in ("", "k", "M", "G"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}".rstrip()
        count /= 1000
    return f"{count:,.0f} T"


def amount(cost: float) -> str:
    """Write a sum of money, in whatever currency, also of a fraction of a cent."""
    return f"{cost:,.2f}" if cost >= 1 else f"{cost:.6f}".rstrip("0").rstrip(".")


def counted(count: int, noun: str) -> str:
    """Write how many there are of what a regular noun names."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
