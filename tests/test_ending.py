"""A command ends when its work is done and said, whatever threads its libraries leave behind."""

from __future__ import annotations

import subprocess
import sys
import time

from samples import ROOT

LEFT_BEHIND = """
import atexit, sys, threading, time
from jobs.cli import main

threading.Thread(target=time.sleep, args=(60,)).start()
atexit.register(print, "cleaned up")
sys.argv = ["embatch", *sys.argv[1:]]
main()
"""


def end(*arguments: str) -> tuple[int, str, str, float]:
    began = time.monotonic()
    command = [sys.executable, "-c", LEFT_BEHIND, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    return done.returncode, done.stdout, done.stderr, time.monotonic() - began


def test_a_thread_that_goes_on_holds_no_command_up_and_nothing_that_was_said_is_lost():
    code, said, _, seconds = end("--version")
    assert (code, said.splitlines()[1:]) == (0, ["cleaned up"])
    assert said[0].isdecimal()
    assert seconds < 40
    code, said, told, _ = end("verify", "nowhere", "--json")
    assert (code, '"exit_code": 2' in said, "holds no embatch output" in told) == (2, True, True)
