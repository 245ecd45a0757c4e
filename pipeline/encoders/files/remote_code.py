"""Code that a model of the hub brings along: what must hold before any of it runs.

It runs only where a job asks for it by `encoder.trust_remote_code`, from the files of one commit, whose sha256 the plan
records; and it runs in the replicas alone, with everything they may do. Reading and planning never import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.encoders.files.staging import cache_root
from pipeline.exceptions import ModelError

CLASSES = ("AutoConfig", "AutoModel")
ERRORS = (OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError, TypeError, SyntaxError)
"""What code that does not fit this Python, or this transformers, ends in."""


def is_asked(config: dict[str, Any], *, trusted: bool) -> bool:
    """Tell whether a model's own code will run: it has some, and the job trusts it."""
    return trusted and bool(config.get("auto_map"))


def check(model: str, folder: Path, config: dict[str, Any]) -> None:
    """Check what config.json names, without importing it.

    Raises:
        ModelError: it names no model class, a file that is not there, or code outside the pinned commit.
    """
    named = config["auto_map"]
    if not isinstance(named, dict) or not all(isinstance(named.get(kind), str) for kind in CLASSES):
        raise ModelError(model, f"its config.json names no code for {' and '.join(CLASSES)} (auto_map: {named})")
    for kind in CLASSES:
        if "--" in named[kind]:
            reason = "runs code of another repository, which no commit of this one pins"
            raise ModelError(model, f"its {kind} ({named[kind]}) {reason}; embatch does not run that")
        file = f"{named[kind].partition('.')[0]}.py"
        if not (folder / file).is_file():
            raise ModelError(model, f"its {kind} is in {file}, which is not there")


@contextmanager
def alone() -> Iterator[None]:
    """Let one process of a node at a time import such code: transformers copies it into a cache of its own first."""
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "remote-code.lock"):
        yield
