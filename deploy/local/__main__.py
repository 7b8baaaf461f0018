"""Run the embedded stack in the foreground: `python -m deploy.local [--only servers]`."""

import argparse
import os
import sys
from pathlib import Path

from deploy.local.outside import BadSetting
from deploy.local.parts import NotInstalled
from deploy.local.place import NoPlace
from deploy.local.ports import PortTaken
from deploy.local.state import StackIsLive, StateFolder
from deploy.local.supervisor import StartFailed, Supervisor

DEFAULT_STATE_DIR = ".local"


def main() -> int:
    """Exit status: 0 stopped as asked, 1 could not start, 2 a setting or a live stack forbids it."""
    arguments = _arguments()
    state = StateFolder(Path(os.environ.get("STATE_DIR") or DEFAULT_STATE_DIR))
    try:
        state.create()
        Supervisor(
            state,
            only_servers=arguments.only == "servers",
            quiet=arguments.quiet,
            stop_with=arguments.stop_with,
        ).run()
    except (BadSetting, StackIsLive) as refusal:
        print(f"The stack does not start: {refusal}", file=sys.stderr)
        return 2
    except (StartFailed, NoPlace, NotInstalled, PortTaken, OSError) as failure:
        print(f"The stack could not be started. {failure}", file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    parser.add_argument("--only", choices=["servers"], help="the servers alone, without our own processes")
    parser.add_argument("--quiet", action="store_true", help="write log lines to STATE_DIR/logs only")
    parser.add_argument(
        "--stop-with", type=int, metavar="PID", action="append", help="stop when process PID ends"
    )
    arguments = parser.parse_args()
    # The Makefile's recipes set this to make's own pid, so that nothing outlives a make killed with -9.
    starter = os.environ.pop("STOP_WITH_PID", "")
    arguments.stop_with = [*(arguments.stop_with or []), *([int(starter)] if starter.isdigit() else [])]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
