"""What goes wrong when: drawn from a seed before the run, every kind once before any comes again; pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PAUSE_S: Final = (0.2, 2.0)  # the moment of a strike, after the recovery from the one before


class Kind(StrEnum):
    """What is done to the stack; processes are killed with -9."""

    API_WORKER = "API worker"
    RELAY = "relay"
    CONSUMER = "consumer"
    TASKS = "task worker"
    SCHEDULER = "scheduler"
    VALKEY = "Valkey"
    VALKEY_FLUSHED = "Valkey, FLUSHALL"
    BROKER = "broker"
    POSTGRES = "PostgreSQL"
    POSTGRES_CHILD = "PostgreSQL, a child"  # upon which it ends every connection and recovers from its log
    SIMULATOR = "Stripe"
    LOST_ANSWERS = "Stripe, answers lost"
    SPOILED_KEYS = "Stripe, 500s that stick"  # replayed for as long as their keys live


@dataclass(frozen=True, slots=True)
class Strike:
    """One thing to do, so many seconds after the recovery from the one before."""

    kind: Kind
    pause_s: float
    lot: float  # from 0 up to 1: which of several processes


def draw(seed: str, count: int, kinds: Sequence[Kind] = tuple(Kind)) -> list[Strike]:
    """Draw so many strikes; the same for the same seed."""
    lots = random.Random(seed)
    drawn: list[Strike] = []
    while len(drawn) < count:
        shuffled = lots.sample(kinds, len(kinds))
        drawn += [Strike(kind, lots.uniform(*PAUSE_S), lots.random()) for kind in shuffled]
    return drawn[:count]
