"""JSON log lines: each line is one object, whatever is logged, with what a machine wants to know of it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import stamina
from samples import ROOT

from pipeline import logs


@pytest.fixture
def written():
    """A logger of its own, and what it wrote."""
    lines: list[str] = []
    formatter = logs.JsonFormatter()

    class Kept(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    handler = Kept()
    handler.setFormatter(formatter)
    logger = logging.getLogger("pipeline.some")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger, formatter, lines
    logger.removeHandler(handler)


def test_a_line_tells_time_level_logger_message_run_and_facts(written):
    logger, formatter, lines = written
    formatter.bind({"run_id": "ab", "job": "docs"})
    formatter.bind({"plan_id": "cd"})
    logger.warning("lost %d", 3, extra={"facts": {"kind": "x", "path": Path("/a")}})
    line = json.loads(lines[0])
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "WARNING",
        "logger": "pipeline.some",
        "message": "lost 3",
        "run_id": "ab",
        "job": "docs",
        "plan_id": "cd",
        "kind": "x",
        "path": "/a",
    }


@pytest.mark.parametrize("message", ["two\nlines", "\u2028 \u00e9 \U0001f600", '"quoted"', "\udcff", "\x00"])
def test_whatever_is_said_is_one_line_of_ascii(written, message):
    logger, _, lines = written
    logger.info("%s", message)
    assert lines[0].isascii()
    assert len(lines[0].splitlines()) == 1
    assert json.loads(lines[0])["message"] == message


def test_a_traceback_stays_in_its_line(written):
    logger, _, lines = written
    try:
        int("wrong")
    except ValueError:
        logger.exception("failed")
    assert len(lines[0].splitlines()) == 1
    assert "ValueError: invalid literal" in json.loads(lines[0])["traceback"]


def test_the_unit_is_that_of_the_thread(written):
    logger, _, lines = written

    def work(number):
        with logs.of_unit(number):
            logger.info("at work")

    for number in (4, 7):
        thread = threading.Thread(target=work, args=(number,))
        thread.start()
        thread.join()
    logger.info("elsewhere")
    assert [json.loads(line).get("unit") for line in lines] == [4, 7, None]


def test_a_worker_logs_as_its_driver_does_once_it_is_told():
    code = (
        "import logging, warnings; from pipeline import logs; logs.follow(None); logs.follow({'run_id': 'ab'});"
        "logs.follow({'run_id': 'cd'}); logging.getLogger('pipeline.x').info('ours');"
        "logging.getLogger('library').info('not shown'); logging.getLogger('library').error('shown');"
        "warnings.warn('python', stacklevel=1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["logger"] for line in lines] == ["pipeline.x", "library", "py.warnings"]
    assert {line["run_id"] for line in lines} == {"cd"}


@pytest.mark.parametrize("how", ["option", "environment"])
def test_an_error_of_a_command_is_a_line_too(embatch, how):
    if how == "option":
        failed = embatch("--log-format", "json", "run", "nowhere.yaml")
    else:
        failed = embatch("run", "nowhere.yaml", EMBATCH_LOG_FORMAT="json")
    assert (failed.returncode, failed.stdout) == (2, "")
    (line,) = [json.loads(text) for text in failed.stderr.splitlines()]
    assert (line["level"], line["kind"], line["exit_code"]) == ("ERROR", "ConfigError", 2)
    assert "nowhere.yaml" in line["message"]


def test_an_unknown_format_is_refused(embatch):
    failed = embatch("--log-format", "xml", "run", "nowhere.yaml")
    assert failed.returncode == 2
    assert "xml" in failed.stderr


def test_another_try_is_told_with_its_reason(written):
    logger, _, lines = written
    logs.explain_retries()
    logs.explain_retries()
    stamina_logger = logging.getLogger("stamina")
    stamina_logger.addHandler(logger.handlers[-1])
    try:
        for attempt in stamina.retry_context(on=OSError, attempts=2, wait_initial=0.0, wait_jitter=0.0):
            with attempt:
                if attempt.num == 1:
                    raise OSError("no answer")
    finally:
        stamina_logger.removeHandler(logger.handlers[-1])
    assert [json.loads(line)["message"] for line in lines] == ["trying again in 0.0 s after OSError('no answer')"]
