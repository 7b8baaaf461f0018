"""The embedded stack's watchdog: leaves when it is told that all is done, and else clears up."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local.processes import MARK
from deploy.local.state import SUPERVISOR, Recorded, StateFolder
from deploy.local.watchdog import GOODBYE
from tests.waiting import LONGEST_S

RUN_ID = f"a-run-of-the-tests-{uuid.uuid4().hex}"  # other processes run the same tests


@pytest.fixture
def unrecorded() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the run that no record names, as one that was caught between its fork and its start."""
    with subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: RUN_ID}) as process:
        yield process
        process.kill()


@contextmanager
def watching(state: StateFolder) -> Iterator[subprocess.Popen[bytes]]:
    """A watchdog over the state folder, whose supervisor is this process."""
    argv = [sys.executable, "-m", "deploy.local.watchdog", str(state.path), str(os.getpid()), RUN_ID]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, bufsize=0) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """A state folder that no stack uses."""
    folder = StateFolder(tmp_path)
    folder.create()
    return folder


def test_after_a_good_goodbye_it_leaves_without_a_look(
    state: StateFolder, unrecorded: subprocess.Popen[bytes]
) -> None:
    """One byte is enough: it is gone before the pipe is closed, and has looked for nothing."""
    with watching(state) as watchdog:
        assert watchdog.stdin is not None
        watchdog.stdin.write(GOODBYE)
        assert watchdog.wait(LONGEST_S) == 0
        assert unrecorded.poll() is None


def test_without_one_it_looks_for_what_may_still_come(
    state: StateFolder, unrecorded: subprocess.Popen[bytes]
) -> None:
    """The supervisor closed the pipe and could not promise anything: what carries the mark is ended."""
    with watching(state) as watchdog:
        assert watchdog.stdin is not None
        watchdog.stdin.close()
        assert watchdog.wait(LONGEST_S) == 0
        assert unrecorded.wait(LONGEST_S) < 0


def test_after_a_death_it_clears_the_records_as_well(state: StateFolder) -> None:
    """The supervisor has died without a word: what it had recorded is ended, and the record goes."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as recorded:
        state.record(SUPERVISOR, Recorded.of(os.getpid()))
        state.record("valkey", Recorded.of(recorded.pid))
        try:
            with watching(state) as watchdog:
                assert watchdog.stdin is not None
                watchdog.stdin.close()
                assert recorded.wait(LONGEST_S) < 0
                assert watchdog.wait(LONGEST_S) == 0
        finally:
            recorded.kill()
    assert not state.pids_file.exists()
