"""What one check found: a line for people, a record for machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.exceptions import PipelineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`exit_code` is what a run would end with for it, 0 unless it is an error; `remedy` is empty where all is well."""

    check: str
    level: Literal["ok", "warning", "error"]
    message: str
    remedy: str = ""
    exit_code: int = 0


def well(check: str, message: str) -> Finding:
    """Nothing to do."""
    return Finding(check=check, level="ok", message=message)


def doubt(check: str, message: str, remedy: str) -> Finding:
    """Say what a run survives but people should know."""
    return Finding(check=check, level="warning", message=message, remedy=remedy)


def failure(check: str, error: PipelineError, remedy: str) -> Finding:
    """Say what a run would end with."""
    return Finding(check=check, level="error", message=str(error), remedy=remedy, exit_code=error.exit_code)
