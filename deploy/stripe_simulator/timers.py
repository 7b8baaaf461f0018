"""What happens by itself later: timers on the simulated clock, kept across restarts."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from deploy.stripe_simulator.store import Store

Action = Callable[[Store, str], None]  # (state, id of the object) -> nothing; runs in a transaction

POLL_S = 0.2  # of real time
BATCH = 500

log = logging.getLogger(__name__)


def set_timer(store: Store, kind: str, object_id: str, due_s: float) -> None:
    """Let the action `kind` happen to the object at the simulated time `due_s`."""
    sql = "INSERT OR REPLACE INTO timers (due_s, kind, object_id) VALUES (?, ?, ?)"
    store.execute(sql, (due_s, kind, object_id))


def drop_timer(store: Store, kind: str, object_id: str) -> None:
    """Let the action not happen after all."""
    store.execute("DELETE FROM timers WHERE kind = ? AND object_id = ?", (kind, object_id))


def run_due(store: Store, actions: Mapping[str, Action]) -> int:
    """Do what is due, earliest first; return how much it was."""
    done = 0
    sql = "SELECT rowid, kind, object_id FROM timers WHERE due_s <= ? ORDER BY due_s, rowid LIMIT ?"
    while due := store.execute(sql, (store.now(), BATCH)).fetchall():
        with store.transaction():
            for row, kind, object_id in due:
                store.execute("DELETE FROM timers WHERE rowid = ?", (row,))
                actions[kind](store, object_id)
        done += len(due)
    return done


async def run_for_ever(store: Store, actions: Mapping[str, Action]) -> None:
    """Do what is due as its time comes, until cancelled."""
    while True:
        try:
            run_due(store, actions)
        except Exception:
            log.exception("a timer failed")
        await asyncio.sleep(POLL_S)
