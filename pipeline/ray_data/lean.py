"""Leave out of a local Ray what nobody looks at: dashboard, autoscaler, log forwarding, statistics.

Each is a Python process that would compete with the encoders for the first ten seconds. Ray has no switch for
them, so its own start methods are replaced; it is pinned, and `tests/run/test_start_up.py` tells if they move.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

STATISTICS = ("register_dataset_to_stats_actor", "update_execution_metrics", "update_iteration_metrics")


@contextmanager
def without_extras() -> Iterator[None]:
    """Start Ray's head in this block with the processes that do work only, and its agent with little in it."""
    from ray._private import utils
    from ray._private.node import Node

    def no_dashboard(node: Any, **_: object) -> None:
        node._webui_url = None  # noqa: SLF001 - as the method that is replaced

    def not_installed() -> ImportError:
        return ImportError("left out")  # what `ray[default]` brings, where it is installed

    replaced = {
        (Node, "start_api_server"): no_dashboard,
        (Node, "start_monitor"): _nothing,
        (Node, "start_log_monitor"): _nothing,
        (utils, "get_dashboard_dependency_error"): not_installed,
    }
    originals = {place: getattr(*place) for place in replaced}
    for place, method in replaced.items():
        setattr(*place, method)
    try:
        yield
    finally:
        for place, method in originals.items():
            setattr(*place, method)


@contextmanager
def without_signal_handler() -> Iterator[None]:
    """Start or join Ray in this block without its handler of SIGTERM, which drains its node for half a minute."""
    from ray._private import utils

    original = utils.set_sigterm_handler
    utils.set_sigterm_handler = _nothing
    try:
        yield
    finally:
        utils.set_sigterm_handler = original


@contextmanager
def without_notice() -> Iterator[None]:
    """Start Ray in this block without the line its backend prints for RAY_BACKEND_LOG_LEVEL, by which it is quiet.

    What else is printed comes when the block ends, so that of a log in JSON every line is an object.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with TemporaryFile() as printed:
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            printed.seek(0)
            for line in printed:
                if b"RAY_BACKEND_LOG_LEVEL" not in line:
                    os.write(2, line)


@contextmanager
def without_statistics() -> Iterator[None]:
    """Run datasets in this block without the actor that gathers figures for the dashboard."""
    from ray.data._internal.stats import _StatsManager

    originals = {name: _StatsManager.__dict__[name] for name in STATISTICS}
    for name in STATISTICS:
        setattr(_StatsManager, name, staticmethod(_nothing))
    try:
        yield
    finally:
        for name, method in originals.items():
            setattr(_StatsManager, name, method)


def _nothing(*_: object, **__: object) -> None:
    """Stand in for what is left out."""
