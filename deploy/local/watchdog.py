"""End a stack's processes when its supervisor dies without having done so (kill -9, out of memory).

Runs in a session of its own and blocks on its standard input: a pipe whose other end only the supervisor
holds. A byte means that the supervisor has ended everything itself, and that there is nothing to do; end of
file without one means that the supervisor is gone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from deploy.local.place import bring_home
from deploy.local.processes import MARK, end_recorded, kill, marked
from deploy.local.state import SUPERVISOR, StackIsLive, StateFolder

RESTART_DELAY_S = 0.2
GOODBYE = b"."
GRACE_S = 1.5  # with the kill after it everything is gone well within five seconds
LOCK_WAIT_S = 0.5
LATE_LOOKS = 6
LATE_LOOK_EVERY_S = 0.2
ROOT = Path(__file__).resolve().parents[2]


class Watchdog:
    """The supervisor's end of the pipe."""

    def __init__(self, state: StateFolder, run_id: str) -> None:
        told = [str(state.path), str(os.getpid()), run_id]
        self._argv = [sys.executable, "-m", "deploy.local.watchdog", *told]
        self._dismissed = threading.Event()
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and again whenever it should die."""
        with self._guard:
            if self._dismissed.is_set():
                return
            # Pipes are not inherited by other children: only we hold the writing end.
            process = subprocess.Popen(
                self._argv, cwd=ROOT, env=_unmarked(), stdin=subprocess.PIPE, start_new_session=True
            )
            self._process = process
            threading.Thread(target=self._replace, args=(process,), daemon=True).start()

    def dismiss(self, *, in_order: bool, wait_s: float) -> None:
        """Let it go. `in_order`: nothing is left and nothing can come, so it leaves at once; wait for that.

        Otherwise it looks after us for what may still come, and nobody waits for it.
        """
        with self._guard:
            self._dismissed.set()
            if self._process is None or self._process.stdin is None:
                return
            with contextlib.suppress(OSError):  # it has died meanwhile
                if in_order:
                    os.write(self._process.stdin.fileno(), GOODBYE)
                self._process.stdin.close()
        if in_order:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)

    def _replace(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._dismissed.wait(RESTART_DELAY_S)
        self.start()


def main() -> None:
    """Arguments: the state folder, the supervisor's pid, the mark of its run."""
    folder, supervisor_pid, run_id = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    if os.read(0, 1) == GOODBYE:
        return
    state = StateFolder(folder)
    if _owns(state, supervisor_pid):
        try:
            with state.locked(LOCK_WAIT_S):
                _clear(state, supervisor_pid, run_id)
        except StackIsLive:
            pass  # the next supervisor was quicker: it has ended what its predecessor left
    # A child that was caught between its fork and its start shows our mark only a moment later.
    for _ in range(LATE_LOOKS):
        kill(marked(run_id), wait_s=0.0)
        time.sleep(LATE_LOOK_EVERY_S)


def _unmarked() -> dict[str, str]:
    """Our environment; the mark is for what a watchdog ends, not for itself."""
    return {name: value for name, value in os.environ.items() if name != MARK}


def _owns(state: StateFolder, supervisor_pid: int) -> bool:
    """Whether the records are still our supervisor's: not stopped in good order, and not another run."""
    supervisor = state.read_pids().get(SUPERVISOR)
    return supervisor is not None and supervisor.pid == supervisor_pid


def _clear(state: StateFolder, supervisor_pid: int, run_id: str) -> None:
    if not _owns(state, supervisor_pid):
        return  # changed while we waited for the lock
    end_recorded(state.read_pids(), GRACE_S, run_id)
    bring_home(state)
    state.forget_run()


if __name__ == "__main__":
    main()
