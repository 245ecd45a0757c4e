"""Every error crosses processes unchanged and ends in one of the exit codes that are promised."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest

from pipeline import exceptions
from pipeline.exceptions import PipelineError, error_classes, from_json, to_json

SAMPLES: dict[str, Any] = {
    "str": "s3://bucket/é \udcff 'quoted'",
    "int": 42,
    "float": 0.25,
    "list[str]": ["one", "two: 1 -> 2"],
    "list[int]": [3, 4],
    "dict[str, int]": {"EMPTY": 1, "BAD_JSON": 2},
}


def sample(kind: type[PipelineError]) -> PipelineError:
    """Build an error from the types in its signature; the bare ones take one message."""
    if "__init__" not in {name for parent in kind.__mro__[: kind.__mro__.index(Exception)] for name in vars(parent)}:
        return kind("what happened")
    parameters = list(inspect.signature(kind).parameters.values())
    return kind(*(SAMPLES[parameter.annotation] for parameter in parameters))


errors = pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)


def facts(error: PipelineError) -> tuple[Any, ...]:
    return type(error), error.args, str(error), error.exit_code, vars(error)


@errors
def test_error_survives_pickling(kind):
    error = sample(kind)
    assert facts(pickle.loads(pickle.dumps(error))) == facts(error)


@errors
def test_error_survives_json(kind):
    error = sample(kind)
    assert facts(from_json(to_json(error))) == facts(error)


@errors
def test_message_holds_every_fact(kind):
    message = str(sample(kind))
    assert message
    for argument in sample(kind).args:
        for fact in argument if isinstance(argument, list | dict) else [argument]:
            assert str(fact) in message or repr(fact) in message or f"{fact:.0f}" in message


@errors
def test_class_says_in_its_docstring_when_it_is_raised(kind):
    assert kind.__doc__
    assert "__doc__" in vars(kind)


def test_exit_codes_are_the_promised_ones():
    assert {kind.exit_code for kind in error_classes()} == set(range(1, 12))


@pytest.mark.parametrize("kind", error_classes()[1:], ids=lambda kind: kind.__name__)
def test_exit_code_is_that_of_the_branch(kind):
    branch = kind.__mro__[kind.__mro__.index(PipelineError) - 1]
    assert kind.exit_code == branch.exit_code != PipelineError.exit_code


def test_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"^[│├└─ ]*(\w+Error)(?: \((\d+)\))?", exceptions.__doc__ or "", re.MULTILINE)
    direct = {kind.__name__: str(kind.exit_code) for kind in [PipelineError, *PipelineError.__subclasses__()]}
    assert drawn == [(kind.__name__, direct.get(kind.__name__, "")) for kind in error_classes()]
