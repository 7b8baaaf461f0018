"""The embedded stack's log files."""

import threading
from pathlib import Path

import pytest

from deploy.local import output

LINES = 2_000


def test_a_log_can_be_read_at_the_moment_when_a_new_file_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader who comes between the old file and the new one is told nothing, not that a file is missing."""
    monkeypatch.setattr(output, "LOG_LIMIT_BYTES", 0)  # a new file for every line
    lines = output.Output(tmp_path, quiet=True)

    def write() -> None:
        for _ in range(LINES):
            lines.line("relay", b"one line")

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        assert output.logged(tmp_path, "relay") in {"", "one line\n"}
    assert output.logged(tmp_path, "relay") == "one line\n"
