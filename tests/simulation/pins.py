"""Take everything that is random or looks at a clock from the seed instead."""

import importlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from random import Random
from typing import Any, Final

from tests.simulation.clock import Clock
from tests.simulation.complaints import COMPLAINTS

TIMES: Final = (
    "shared.database",
    "payment_worker.processing",
    "payment_worker.courier",
    "payment_worker.notices",
    "shared.commands.asking",
    "deploy.stripe_simulator.store",
    "deploy.stripe_simulator.events",
    "deploy.stripe_simulator.errors",
)
CHANCES: Final = (
    "payment_worker.outcomes",
    "payment_worker.gate",
    "payment_worker.breaker",
    "payment_worker.courier",
    "deploy.stripe_simulator.conversation",
    "deploy.stripe_simulator.events",
    "deploy.stripe_simulator.endpoint",
)


DATETIMES: Final = ("payment_worker.handling", "payment_worker.commands")


class Datetimes:
    """Stands in for the class `datetime`, as far as it tells the time and reads one."""

    def __init__(self, clock: Clock) -> None:
        """Now is what this clock says."""
        self._clock = clock
        self.fromisoformat = datetime.fromisoformat

    def now(self, _zone: object) -> datetime:
        """The simulated time."""
        return self._clock.now()


class Ids:
    """Stands in for the modules `uuid_utils` and `secrets`."""

    def __init__(self, clock: Clock) -> None:
        """Ids carry the time of this clock."""
        self._clock = clock
        self.chance = Random(0)
        self._last = 0

    def begin(self, chance: Random) -> None:
        """From now on `chance` decides."""
        self.chance = chance
        self._last = 0

    def uuid7(self) -> uuid.UUID:
        """In order of time, also within a millisecond."""
        moment = max(self._clock.us // 1000 << 12, self._last + 1)
        self._last = moment
        value = moment >> 12 << 80 | 7 << 76 | (moment & 0xFFF) << 64 | 2 << 62 | self.chance.getrandbits(62)
        return uuid.UUID(int=value)

    def token_bytes(self, count: int) -> bytes:
        """Random bytes."""
        return self.chance.randbytes(count)


@contextmanager
def pinned(clock: Clock, ids: Ids, chance: Random) -> Iterator[None]:
    """Within the block every module named above sees the simulated time and the seed's chances."""
    names: dict[str, Any] = {f"{module}.time": clock for module in TIMES}
    names |= {f"{module}.random": chance for module in CHANCES}
    names |= {f"{module}.datetime": Datetimes(clock) for module in DATETIMES}
    names |= {"shared.database.uuid_utils": ids, "deploy.stripe_simulator.ids.secrets": ids}
    names |= {"shared.notifications.secrets": ids, "payment_worker.courier.log": COMPLAINTS}
    names |= {"payment_worker.courier.PER_RECEIVER": 2}
    with replacing(names):
        yield


@contextmanager
def replacing(names: Mapping[str, Any]) -> Iterator[None]:
    """Let each name (module.attribute) stand for another value within the block."""
    before = {name: _replaced(name, stand_in) for name, stand_in in names.items()}
    try:
        yield
    finally:
        for name, value in before.items():
            _replaced(name, value)


def _replaced(name: str, value: Any) -> Any:
    path, _, attribute = name.rpartition(".")
    module = importlib.import_module(path)
    before = getattr(module, attribute)
    setattr(module, attribute, value)
    return before
