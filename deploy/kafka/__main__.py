"""Fetch Apache Kafka with Maven, once, and try it: `python -m deploy.kafka`."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import IO

from deploy.kafka.broker import Broker
from deploy.kafka.install import CLASSES, POM, fetch, is_fetched, java
from deploy.local.parts import NotInstalled
from deploy.local.ports import any_free

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.1


def main() -> int:
    """Exit status: 0 when Kafka can be started, 1 when something is missing, which is then named."""
    try:
        java()
        if not is_fetched():
            print(f"Fetching Apache Kafka with Maven ({POM.name} names what)", flush=True)
            fetch()
        if not CLASSES.exists():
            print("Starting it for the first time", flush=True)
            archive_classes()
    except NotInstalled as missing:
        print(f"Apache Kafka cannot be had: {missing}", file=sys.stderr)
        return 1
    return 0


def archive_classes() -> None:
    """Run a broker until it answers, and let Java keep what it has loaded; raises NotInstalled."""
    draft = CLASSES.with_suffix(f".{os.getpid()}")  # whole or not there: Java crashes on a part of one
    with tempfile.TemporaryDirectory() as folder, closing(Broker(Path(folder), any_free())) as broker:
        broker.prepare()
        argv = broker.argv(f"-XX:ArchiveClassesAtExit={draft}")
        with tempfile.TemporaryFile() as words, subprocess.Popen(argv, stdout=words, stderr=words) as process:
            try:
                _wait_answer(broker, process, words)
                process.terminate()
                process.wait(STOP_TIMEOUT_S)
            finally:
                process.kill()
    draft.rename(CLASSES)


def _wait_answer(broker: Broker, process: subprocess.Popen[bytes], words: IO[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not broker.answers():
        if process.poll() is not None or time.monotonic() > deadline:
            words.seek(0)
            message = f"it does not start; it has said\n{words.read().decode(errors='replace')}"
            raise NotInstalled(message)
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
