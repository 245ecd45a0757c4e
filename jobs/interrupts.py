"""What ends a command from outside, as calls in its main thread: signals, and an alarm at a set time."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from pipeline.exceptions import InterruptedRunError

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AT_ONCE_SECONDS = 0.001
"""A timer of 0 seconds would be none."""


def on_signals(tell: Callable[[InterruptedRunError], None]) -> None:
    """Have the signals that end a process told; those that are ignored, as `nohup` and `&` in scripts do, stay so."""

    def told(number: int, _frame: FrameType | None) -> None:
        tell(InterruptedRunError(f"stopped by {signal.Signals(number).name}"))

    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, told)


def end(cause: InterruptedRunError) -> NoReturn:
    """End the command: raise what a signal told."""
    raise cause


def after(seconds: float, call: Callable[[], None]) -> None:
    """Call in so many seconds, whatever the main thread is doing then."""
    signal.signal(signal.SIGALRM, lambda _number, _frame: call())
    signal.setitimer(signal.ITIMER_REAL, max(seconds, _AT_ONCE_SECONDS))
