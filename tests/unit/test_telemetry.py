"""What a process writes: JSON a program reads, or lines for a person, each with the process's name."""

import json
import os
import pty
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.waiting import LONGEST_S

# Processes of their own: what is set up here is set up for a whole process.
SETUP = """
import logging, os, signal, sys, threading
from shared.telemetry import configure_logging, get_logger, log_context, say_at_once
configure_logging("teller", "info", {log_format!r})
log = get_logger("tests")
"""
CRASH = "raise ValueError('of card 4242424242424242')"
IN_A_THREAD = "thread = threading.Thread(target={what}, name='aside'); thread.start(); thread.join()"


def run(
    code: str, log_format: str = "json", stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run this with logs set up."""
    program = SETUP.format(log_format=log_format) + code
    return subprocess.run(
        [sys.executable, "-c", program],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )


def lines(code: str) -> list[dict[str, Any]]:
    """What this writes, which must be JSON, and on standard output."""
    ended = run(code)
    assert ended.stderr == ""
    return [json.loads(line) for line in ended.stdout.splitlines()]


def on_a_terminal(code: str, log_format: str) -> str:
    """What this writes to a terminal."""
    ours, theirs = pty.openpty()
    try:
        ended = run(code, log_format, stdout=theirs)
        assert ended.returncode == 0, ended.stderr
        return os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def is_json(text: str) -> bool:
    """Tell whether each line is an object of JSON."""
    return all(line.startswith("{") and json.loads(line) for line in text.splitlines())


@pytest.mark.parametrize(
    "code",
    [
        "log.info('here')",
        "logging.getLogger('library').info('here')",
        IN_A_THREAD.format(what="lambda: log.info('here')"),
        IN_A_THREAD.format(what="lambda: logging.getLogger('library').info('here')"),
        "say_at_once('library', 'here')",
    ],
    ids=["ours", "a library's", "ours in a thread", "a library's in a thread", "a signal handler's"],
)
def test_every_line_names_its_process(code: str) -> None:
    """Whoever logs, in whichever thread."""
    (line,) = lines(code)
    assert (line["process"], line["event"], line["level"]) == ("teller", "here", "info")


def test_what_is_known_of_the_work_is_on_its_lines() -> None:
    """Ids of the block, and none that are not known; a name of their own cannot hide the process."""
    (line,) = lines("with log_context(payment_id=7, order_id=None): log.info('here')")
    assert (line["payment_id"], line["process"]) == ("7", "teller")
    assert "order_id" not in line


def test_what_ends_the_process_is_one_line() -> None:
    """An error that nobody caught is logged with its trace, and without the card's number; status 1."""
    (line,) = lines(CRASH)
    assert (line["event"], line["level"], line["process"]) == ("ended by an error", "critical", "teller")
    assert line["exception"].startswith("Traceback")
    assert "ValueError: of card" in line["exception"]
    assert "4242424242424242" not in line["exception"]
    assert run(CRASH).returncode == 1


def test_what_ends_a_thread_is_one_line() -> None:
    """It says which thread, and the process lives on; a thread that ended itself is no news."""
    crash = IN_A_THREAD.format(what="lambda: 1 / 0")
    (line, after) = lines(f"{crash}; log.info('here')")
    assert line["event"] == "a thread was ended by an error: aside"
    assert line["exception"].endswith("ZeroDivisionError: division by zero")
    assert after["event"] == "here"
    assert lines(IN_A_THREAD.format(what="sys.exit")) == []


def test_ctrl_c_is_no_error() -> None:
    """Whoever interrupts it knows why it ended."""
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # ignored by who starts us, perhaps
    ended = run(f"{heard}; signal.raise_signal(signal.SIGINT)")
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", -signal.SIGINT)


@pytest.mark.parametrize(
    ("log_format", "json_in"), [("json", {"pipe", "terminal"}), ("auto", {"pipe"}), ("pretty", set())]
)
def test_the_form_is_chosen(log_format: str, json_in: set[str]) -> None:
    """JSON or for people as LOG_FORMAT says; auto is for people on a terminal only."""
    code = "log.info('here', payment_id='7')"
    written = {"pipe": run(code, log_format).stdout, "terminal": on_a_terminal(code, log_format)}
    assert all("here" in text and "teller" in text for text in written.values())
    assert {where for where, text in written.items() if is_json(text)} == json_in
