"""Run `payment-worker` many times without starting Python and importing everything anew each time.

Reads what to run from standard input, a line of JSON each, and answers how it went in the same way. Each
command is a process of its own: a copy of this one, which has one thread and is connected to nothing.
"""

import atexit
import gc
import json
import os
import pkgutil
import random
import signal
import sys
import tempfile
import threading
import traceback
from importlib import import_module
from typing import Any, BinaryIO, Final, NoReturn

import payment_worker
from payment_worker.cli import main

LONGEST_S: Final = 300  # a limit for what hangs; a loaded machine takes its time
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2


def import_everything() -> None:
    """Import what the commands would import when they are run."""
    for each in pkgutil.walk_packages(payment_worker.__path__, "payment_worker."):
        import_module(each.name)


def become(asked: dict[str, Any], output: BinaryIO, errors: BinaryIO) -> NoReturn:
    """Be the command that was asked for, until its end."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output.fileno(), STANDARD_OUTPUT)
    os.dup2(errors.fileno(), STANDARD_ERROR)
    signal.alarm(LONGEST_S)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    random.seed()
    sys.argv = asked["argv"]
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - shown as the interpreter would
        traceback.print_exc()
        status = 1
    for each in threading.enumerate():
        if each is not threading.current_thread() and not each.daemon:
            each.join()
    # What is registered for the end is done; to take the copy to pieces would take longest of all.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """Run a command to its end; return its exit status and what it has said."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            become(asked, output, errors)
        _, status = os.waitpid(child, 0)
        said: dict[str, Any] = {"returncode": os.waitstatus_to_exitcode(status)}
        for name, file in (("stdout", output), ("stderr", errors)):
            file.seek(0)
            said[name] = file.read().decode()
        return said


if __name__ == "__main__":
    import_everything()
    gc.freeze()  # or the first collection in each copy would write to all that was imported
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
