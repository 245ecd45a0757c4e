"""Runs as processes that a test can signal or kill, and what they began to encode."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from samples import ROOT


def start(job_file: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, as a scheduler does, heeding SIGHUP also below nohup."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "run", str(job_file), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509 - no threads are waited for
    )


def encoded(log: Path) -> list[str]:
    """Units in the order in which their encoding began, from what a failpoint appended."""
    return [line.split()[1] for line in log.read_text().splitlines()] if log.exists() else []
