"""Every error embatch raises on purpose, with the exit code a scheduler sees.

PipelineError (1)
├── ConfigError (2)                 a key, an option or the output's permissions
├── DeadRateError (3)               more dead letters than `limits.max_dead_rate`
├── ConflictError (4)
│   ├── PlanChangedError            the output belongs to another input, config or model
│   ├── OutputOwnedError            another run is alive
│   ├── ForeignOutputError          the prefix holds files of something else
│   ├── SeriesOrderError            another output of the series has no plan yet
│   └── NoCreateOnlyError           the store overwrites what must be created once
├── SourceError (5)
│   ├── SourceMissingError          nothing matches the input
│   ├── SourceReadError             a file cannot be decoded
│   ├── SourceChangedError          a file differs from the plan
│   └── SourceSchemaError           a column has a type that cannot be carried
├── ModelError (6)                  model files, weights or device
│   ├── ModelChangedError           the files are not those of the plan
│   └── DeviceError                 no such device where it should encode
├── StallError (7)                  nothing moved for `limits.stall_seconds`
├── InterruptedRunError (8)         a signal, a lost worker: run the same command again
│   ├── LimitReachedError           `limits.deadline` or `limits.max_tokens`
│   │   └── CostReachedError        `limits.max_cost`
│   └── PoisonUnitError             one unit keeps killing its worker
├── StorageError (9)                a store does not answer
│   └── TransientStorageError       worth another try; retried inside `storage`
├── EmptyInputError (10)            no rows, and `--fail-on-empty` was given
└── DamagedOutputError (11)         `verify` found the output wrong

Each class passes all its arguments to `Exception.__init__`, so that it survives
pickling between Ray workers, and keeps them as attributes.
"""

from __future__ import annotations

import json


class PipelineError(Exception):
    """The root: an unexpected failure inside embatch."""

    exit_code = 1


class ConfigError(PipelineError):
    """A key of the job file or an option of the command is wrong."""

    exit_code = 2

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key, self.reason = key, reason

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


class DeadRateError(PipelineError):
    """All units are committed, but too many rows became dead letters to publish."""

    exit_code = 3

    def __init__(self, dead: int, rows: int, limit: float, by_code: dict[str, int]) -> None:
        super().__init__(dead, rows, limit, by_code)
        self.dead, self.rows, self.limit, self.by_code = dead, rows, limit, by_code

    def __str__(self) -> str:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(self.by_code.items()))
        return (
            f"{self.dead} of {self.rows} rows are dead letters ({codes}), more than "
            f"limits.max_dead_rate={self.limit:g} allows; see _dead/ in the output, then repair the "
            "input or run again with a higher limit: nothing is encoded twice"
        )


class ConflictError(PipelineError):
    """The output is not this job's to write."""

    exit_code = 4


class PlanChangedError(ConflictError):
    """The output was planned from another input, config, model or version of embatch."""

    def __init__(self, output: str, differences: list[str]) -> None:
        super().__init__(output, differences)
        self.output, self.differences = output, differences

    def __str__(self) -> str:
        lines = "\n  ".join(self.differences)
        return (
            f"{self.output} was planned differently (planned -> now):\n  {lines}\n"
            "take the settings back to continue it, or name a new output"
        )


class OutputOwnedError(ConflictError):
    """Another run holds the output and is alive."""

    def __init__(self, output: str, owner: str) -> None:
        super().__init__(output, owner)
        self.output, self.owner = output, owner

    def __str__(self) -> str:
        return (
            f"{self.output} is being written by {self.owner}; wait for it, or stop it there, "
            "or take over with --takeover"
        )


class ForeignOutputError(ConflictError):
    """The output prefix holds objects but no plan of embatch."""

    def __init__(self, output: str, example: str) -> None:
        super().__init__(output, example)
        self.output, self.example = output, example

    def __str__(self) -> str:
        return (
            f"{self.output} is not empty and has no _job/plan.json (it holds {self.example!r}); "
            "name an empty folder or prefix"
        )


class SeriesOrderError(ConflictError):
    """Another output of the series was begun and not planned, so what is left for this one is open."""

    def __init__(self, series: str, output: str, entry: str) -> None:
        super().__init__(series, output, entry)
        self.series, self.output, self.entry = series, output, entry

    def __str__(self) -> str:
        return (
            f"{self.series}/{self.output} of the same series was begun and has no plan yet: run it first, or let the "
            "run finish that is planning it; if it shall never be, and nothing runs it, delete "
            f"{self.series}/{self.entry}"
        )


class NoCreateOnlyError(ConflictError):
    """The store lets a second writer replace an object that was to be created once."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output

    def __str__(self) -> str:
        return (
            f"the store behind {self.output} ignores create-only writes, so two runs could overwrite "
            "each other; use a store with conditional writes, or --single-writer where you "
            "make sure that one run at a time writes here"
        )


class SourceError(PipelineError):
    """The input is missing, changed or unreadable."""

    exit_code = 5


class SourceMissingError(SourceError):
    """Nothing readable matches the input."""

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(uri, reason)
        self.uri, self.reason = uri, reason

    def __str__(self) -> str:
        return f"no input at {self.uri!r}: {self.reason}"


class SourceReadError(SourceError):
    """A source file cannot be opened or decoded."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot read source file {self.path!r}: {self.reason}"


class SourceChangedError(SourceError):
    """Source files are no longer what the plan pinned."""

    def __init__(self, changes: list[str]) -> None:
        super().__init__(changes)
        self.changes = changes

    def __str__(self) -> str:
        lines = "\n  ".join(self.changes)
        return (
            f"the input changed since it was planned:\n  {lines}\n"
            "restore the files, name a new output, or use --skip-changed to set their rows aside as dead letters"
        )


class SourceSchemaError(SourceError):
    """A column has a type that cannot be carried."""

    def __init__(self, path: str, column: str, reason: str) -> None:
        super().__init__(path, column, reason)
        self.path, self.column, self.reason = path, column, reason

    def __str__(self) -> str:
        return f"column {self.column!r} of {self.path!r}: {self.reason}"


class ModelError(PipelineError):
    """The model's files, weights or device cannot be used."""

    exit_code = 6

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)
        self.model, self.reason = model, reason

    def __str__(self) -> str:
        return f"model {self.model!r}: {self.reason}"


class ModelChangedError(ModelError):
    """The model's files on this node are not those the plan was made with."""

    def __init__(self, model: str, folder: str, files: list[str]) -> None:
        PipelineError.__init__(self, model, folder, files)
        self.model, self.folder, self.files = model, folder, files

    def __str__(self) -> str:
        return f"model {self.model!r}: files in {self.folder!r} are not those of the plan: {', '.join(self.files)}"


class DeviceError(ModelError):
    """A node that should encode lacks the device; `model` is what was asked for."""

    def __str__(self) -> str:
        return f"device {self.model!r}: {self.reason}"


class StallError(PipelineError):
    """No unit was committed and no batch finished for too long."""

    exit_code = 7

    def __init__(self, seconds: float, units: list[int]) -> None:
        super().__init__(seconds, units)
        self.seconds, self.units = seconds, units

    def __str__(self) -> str:
        at = ", ".join(map(str, self.units)) or "none"
        return (
            f"nothing moved for {self.seconds:.0f} s (units being encoded: {at}); "
            "run the same command again to continue"
        )


class InterruptedRunError(PipelineError):
    """The run was stopped or lost a worker; the same command continues it."""

    exit_code = 8

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}; run the same command again to continue"


class LimitReachedError(InterruptedRunError):
    """The run's time or budget of tokens is used up; the same command continues with a new one."""

    def __init__(self, limit: str, value: str) -> None:
        PipelineError.__init__(self, limit, value)
        self.limit, self.value = limit, value
        self.reason = f"{limit}={value} is reached"


class CostReachedError(LimitReachedError):
    """The output has cost as much as it may; only a higher limit continues it."""

    def __str__(self) -> str:
        return f"{self.reason} by this output; set a higher one to continue, nothing is paid twice"


class PoisonUnitError(InterruptedRunError):
    """One unit killed its worker each time it was tried, and no single rows of it are known to be the cause."""

    def __init__(self, unit: int, attempts: int, pieces: str, cause: str = "") -> None:
        PipelineError.__init__(self, unit, attempts, pieces, cause)
        self.unit, self.attempts, self.pieces, self.cause = unit, attempts, pieces, cause

    def __str__(self) -> str:
        cause = f": {self.cause}" if self.cause else ""
        return (
            f"unit {self.unit} ({self.pieces}) lost its worker {self.attempts} times{cause}; "
            "look at these rows and at the worker's memory before running again"
        )


class StorageError(PipelineError):
    """A store failed after all retries."""

    exit_code = 9

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"storage failed at {self.path!r}: {self.reason}"


class TransientStorageError(StorageError):
    """A storage request failed in a way that may pass."""


class EmptyInputError(PipelineError):
    """The input matched files that hold no rows, and --fail-on-empty was given."""

    exit_code = 10

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        return f"the files at {self.uri!r} hold no rows"


class DamagedOutputError(PipelineError):
    """`verify` found that the output is not what plan and input ask for."""

    exit_code = 11

    def __init__(self, output: str, findings: list[str]) -> None:
        super().__init__(output, findings)
        self.output, self.findings = output, findings

    def __str__(self) -> str:
        lines = "\n  ".join(self.findings)
        return f"{self.output} is damaged:\n  {lines}"


def to_json(error: PipelineError) -> str:
    """Serialize an error for a receipt, so that it crosses processes without pickle."""
    return json.dumps([type(error).__name__, list(error.args)])


def from_json(text: str) -> PipelineError:
    """Rebuild the error that `to_json` wrote."""
    name, args = json.loads(text)
    known = {kind.__name__: kind for kind in error_classes()}
    error: PipelineError = known[name](*args)
    return error


def error_classes(root: type[PipelineError] = PipelineError) -> list[type[PipelineError]]:
    """List the whole tree below and including `root`."""
    return [root, *(kind for child in root.__subclasses__() for kind in error_classes(child))]
