"""What a scheduler does with each exit code of embatch. The standard library alone: Airflow imports it too."""

from __future__ import annotations

from enum import Enum


class Action(Enum):
    """What comes after a command of embatch has ended."""

    GO_ON = "go on"
    RETRY = "run the same command again"
    SKIP = "skip"
    ALERT = "alert"


ACTIONS = {
    0: Action.GO_ON,
    1: Action.ALERT,
    2: Action.ALERT,
    3: Action.ALERT,
    4: Action.ALERT,
    5: Action.ALERT,
    6: Action.ALERT,
    7: Action.RETRY,
    8: Action.RETRY,
    9: Action.RETRY,
    10: Action.SKIP,
    11: Action.ALERT,
}
BUG, WRONG, DEAD_LETTERS, INTERRUPTED = 1, 2, 3, 8
_SIGNALLED = 128
"""A shell says 128 and the signal's number of a process that a signal killed, Python the negative number."""


def action(code: int) -> Action:
    """Return what to do after an exit code.

    A process that a signal killed counts as interrupted: mostly memory or a machine was taken from it.
    """
    if code < 0 or code > _SIGNALLED:
        return Action.RETRY
    return ACTIONS.get(code, Action.ALERT)


def should_retry(code: int) -> bool:
    """Tell whether the same command is worth running again: it continues where the last one ended."""
    return action(code) is Action.RETRY


def within_contract(code: int) -> int:
    """Return a driver's code if it is one of embatch, else 8 or 1 by whether it is worth running again."""
    if code in ACTIONS:
        return code
    return INTERRUPTED if should_retry(code) else BUG
