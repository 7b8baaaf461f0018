"""Every process's lines under its name: on the terminal, and in a bounded log file per process."""

import contextlib
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO, Final

from deploy.local.state import SUPERVISOR

LOG_LIMIT_BYTES = 20_000_000  # then the file becomes NAME.log.1 and a new one begins
LINE_LIMIT_BYTES = 65_536
SCREEN_LINES = 10_000  # waiting for a slow or paused terminal; more are only in the files
NAME_WIDTH = 10
COLOURS = {
    SUPERVISOR: "1",
    "postgres": "34",
    "valkey": "31",
    "broker": "33",
    "simulator": "35",
    "ordering": "94",
    "api": "32",
    "relay": "36",
    "consumer": "96",
    "tasks": "92",
    "scheduler": "95",
}
CLOSE: Final = None


def logged(logs: Path, name: str) -> str:
    """What the process `name` has written; nothing while it has no file, as when a new one is begun."""
    try:
        return (logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


class Output:
    """Takes lines from several threads; never makes one of them wait for the terminal."""

    def __init__(self, logs: Path, *, quiet: bool) -> None:
        self._logs = logs
        self._quiet = quiet
        self._colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._files: dict[str, IO[bytes]] = {}
        self._guard = threading.Lock()
        self._screen: queue.Queue[str | None] = queue.Queue(SCREEN_LINES)
        self._printer = threading.Thread(target=self._print, daemon=True)
        self._printer.start()

    def say(self, text: str) -> None:
        """The supervisor's own words, line by line."""
        for line in text.splitlines():
            self.line(SUPERVISOR, line.encode())

    def line(self, name: str, line: bytes) -> None:
        """One line of the process `name`."""
        with self._guard, contextlib.suppress(OSError):  # a full disk must not stop the processes
            self._write(name, line.rstrip(b"\r\n") + b"\n")
        if not self._quiet:
            self._show(self._prefix(name) + line.decode(errors="replace").rstrip("\r\n"))

    def pump(self, name: str, stream: IO[bytes]) -> None:
        """Pass on every line of a process until it and its children have closed the stream."""
        with stream:
            for line in iter(lambda: stream.readline(LINE_LIMIT_BYTES), b""):
                self.line(name, line)

    def tail(self, name: str, lines: int = 20) -> str:
        """The last lines of a process, for a message about its failure."""
        return "\n".join(f"  {line}" for line in logged(self._logs, name).splitlines()[-lines:])

    def close(self, timeout_s: float = 1.0) -> None:
        """Show what still waits, as far as the terminal takes it in time."""
        self._show(CLOSE)
        self._printer.join(timeout_s)

    def _prefix(self, name: str) -> str:
        label = f"{'stack' if name == SUPERVISOR else name:<{NAME_WIDTH}}| "
        return f"\x1b[{COLOURS.get(name, '2')}m{label}\x1b[0m" if self._colour else label

    def _write(self, name: str, line: bytes) -> None:
        file = self._files.get(name)
        if file is None or file.tell() > LOG_LIMIT_BYTES:
            file = self._begin(name)
        file.write(line)

    def _begin(self, name: str) -> IO[bytes]:
        if name in self._files:
            self._files.pop(name).close()
        path = self._logs / f"{name}.log"
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_suffix(".log.1"))
        self._files[name] = file = path.open("wb", buffering=0)
        return file

    def _show(self, line: str | None) -> None:
        try:
            self._screen.put_nowait(line)
        except queue.Full:
            return  # it is in the file

    def _print(self) -> None:
        terminal_is_there = True
        while (line := self._screen.get()) is not CLOSE:
            try:
                if terminal_is_there:
                    print(line, flush=True)
            except (OSError, ValueError):
                terminal_is_there = False  # closed: the stack goes on or stops by its signal, not by this
