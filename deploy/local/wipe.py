"""Empty a state folder for a run that starts from nothing."""

import shutil
from typing import Final

from deploy.local.place import bring_home
from deploy.local.processes import end_recorded
from deploy.local.state import StateFolder

LOCK_WAIT_S: Final = 6.0  # the run before this one may still be clearing up
LEFTOVERS_GRACE_S: Final = 2.0


def wipe(state: StateFolder) -> None:
    """Empty the folder, and end what a killed run has left. Raises StackIsLive when a stack runs in it."""
    state.create()
    with state.locked(LOCK_WAIT_S):
        end_recorded(state.read_pids(), LEFTOVERS_GRACE_S)
        bring_home(state)
        for entry in state.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
