"""Named places where a test can stop, kill or observe the product.

Off unless EMBATCH_FAILPOINTS is set, for example
"commit.after_put@unit=3:SIGKILL;encode.mid:append=calls.txt". A place may ask for a unit, or for a word of the text
that is being encoded, "encode.text@word=poison:SIGSEGV". Actions: raise, error (one that nobody expects), SIGKILL and
other signals, sleep=SECONDS, exit=CODE, append=FILE (one line a hit), and once=FILE,ACTION, which only the first
process to create FILE carries out. `NAMES` is the closed list of places.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from pipeline.exceptions import InterruptedRunError

NAMES = (
    "plan.before_head",
    "calibration.encode",
    "calibration.before_put",
    "calibration.after_put",
    "claim.after_create",
    "read.mid",
    "encode.start",
    "encode.text",
    "encode.mid",
    "commit.before_put",
    "commit.after_put",
    "local.before_link",
    "local.after_link",
    "manifest.before_put",
    "manifest.after_put",
)
VARIABLE = "EMBATCH_FAILPOINTS"


def hit(name: str, unit: int | None = None, text: str = "") -> None:
    """Carry out the action the environment asks for at this place, if any."""
    rules = os.environ.get(VARIABLE)
    if rules:
        for rule in rules.split(";"):
            _apply(rule, name, unit, text)


def _apply(rule: str, name: str, unit: int | None, text: str) -> None:
    place, _, action = rule.partition(":")
    place, _, word = place.partition("@word=")
    wanted, _, at_unit = place.partition("@unit=")
    if wanted != name or (at_unit and int(at_unit) != unit) or (word and word not in text.split()):
        return
    _carry_out(action, name, unit)


def _carry_out(action: str, name: str, unit: int | None) -> None:
    verb, _, argument = action.partition("=")
    if verb == "append":
        with Path(argument).open("a", encoding="utf-8") as log:
            log.write(f"{name} {'-' if unit is None else unit} {os.getpid()}\n")
    elif verb == "sleep":
        time.sleep(float(argument))
    elif verb == "exit":
        os._exit(int(argument))
    elif verb == "once":
        file, _, then = argument.partition(",")
        with suppress(FileExistsError):
            Path(file).touch(exist_ok=False)
            _carry_out(then, name, unit)
    elif verb == "error":
        raise RuntimeError(f"failpoint {name}")
    elif verb == "raise":
        raise InterruptedRunError(f"failpoint {name}")
    else:
        os.kill(os.getpid(), signal.Signals[verb])
