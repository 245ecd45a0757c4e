"""What `--help` shows of options: a flag by its name alone, where Typer writes `<bool>` as if it took a value."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Verb(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> Any:
        """Return its parameters."""
        return _plain(super().get_params(ctx))


class Verbs(TyperGroup):
    """A group of commands."""

    def get_params(self, ctx: Any) -> Any:
        """Return its parameters."""
        return _plain(super().get_params(ctx))


def _plain(parameters: Any) -> Any:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters
