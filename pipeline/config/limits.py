"""When a run gives up."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from pipeline.config.section import Count, Section

_DURATION = re.compile("([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?")


class LimitsConfig(Section):
    """When a run gives up; never part of the output's identity."""

    max_dead_rate: Annotated[float, Field(ge=0, le=1, strict=True)] = 0.001
    """Dead letters to rows at the most (empty texts apart); above it exit 3 and no manifest."""
    stall_seconds: Annotated[float, Field(gt=0, strict=True)] = 900.0
    """Exit 7 when nothing moved for so long."""
    unit_attempts: Count = 3
    """How often a unit may lose its worker before its rows are tried apart; those that end a process alone become dead
    letters. Where none does, the run ends and names the unit."""
    deadline: Annotated[str, Field(json_schema_extra={"pattern": f"^{_DURATION.pattern}$"})] | None = None
    """End the run so long after its command began: `90s`, `45m`, `1h30m`, `1d`. Exit 8; the same command continues."""
    max_tokens: Count | None = None
    """End the run when it has encoded so many tokens; at most the two units a replica has in flight come on top, and a
    calibration's sample, which is encoded whole. Exit 8; the same command continues, with as many again."""
    max_cost: Annotated[float, Field(gt=0, strict=True)] | None = None
    """End the run when the whole output, earlier runs included, has cost so much by
    `encoder.remote.price_per_million_tokens`; what is in flight comes on top, as does the rest of a calibration's
    sample. Exit 8; a higher limit continues."""
    grace_seconds: Annotated[float, Field(ge=0, strict=True)] = 25.0
    """How long units in flight may go on after a signal or one of the three limits above; then exit 8."""

    @field_validator("deadline", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        if value is None or (isinstance(value, str) and _seconds(value)):
            return value
        msg = "write a duration, such as 90s, 45m, 2h or 1h30m"
        raise ValueError(msg)

    @property
    def deadline_s(self) -> int | None:
        """The deadline in seconds after the command began."""
        return None if self.deadline is None else _seconds(self.deadline)


def _seconds(duration: str) -> int:
    """Return the seconds of a duration; 0 where it is none."""
    match = _DURATION.fullmatch(duration)
    parts = zip(match.groups("0s"), (86_400, 3600, 60, 1), strict=True) if match else ()
    return sum(int(part[:-1]) * seconds for part, seconds in parts)
