"""One seed from its beginning to its end: chaos, with looks in between, then rest, then the last look."""

import hashlib
from dataclasses import dataclass, field

from tests.simulation.chaos import Chaos
from tests.simulation.drain import calm, drain, spell
from tests.simulation.harness import Harness
from tests.simulation.invariants import EVERYTHING_COMES_TO_REST, NOTHING_BREAKS, broken
from tests.simulation.shop import Shop
from tests.simulation.view import take
from tests.simulation.world import World

LOOKS = 3  # before the last one
SPELLS = 0.8  # the share of looks that good weather follows


@dataclass
class Run:
    """What became of a seed."""

    seed: int
    trace: list[str]
    broken: list[tuple[str, str]]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The same for the same steps."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


def run_seed(harness: Harness, seed: int) -> Run:
    """Simulate one seed."""
    harness.begin(seed)
    world = World(harness)
    shop = Shop(world)
    chaos = Chaos(world, shop)
    try:
        found = _simulate(world, shop, chaos)
    finally:
        _leave(world)
    return Run(seed, list(world.scheduler.trace), found, _counts(world, shop, chaos))


def _simulate(world: World, shop: Shop, chaos: Chaos) -> list[tuple[str, str]]:
    for _ in range(LOOKS):
        chaos.some_steps()
        if found := _look(world, shop, at_rest=False):
            return found
        if world.chance.random() < SPELLS:
            spell(world)
    calm(world)
    if world.broker.losses:
        shop.send_messages_again()
    if not drain(world):
        return [(EVERYTHING_COMES_TO_REST, "something is due for ever"), *_look(world, shop, at_rest=True)]
    return _look(world, shop, at_rest=True)


def _look(world: World, shop: Shop, *, at_rest: bool) -> list[tuple[str, str]]:
    found = broken(take(world, shop), at_rest=at_rest)
    return [(NOTHING_BREAKS, problem) for problem in world.problems] + found


def _leave(world: World) -> None:
    """Whatever was found, nobody is left in the middle of something."""
    calm(world)
    world.end_relay()
    world.simulator.close()


def _counts(world: World, shop: Shop, chaos: Chaos) -> dict[str, int]:
    counts = {f"asked: {name}": count for name, count in shop.counts.items()}
    counts |= {f"gateway: {name}": count for name, count in world.weather.met.items()}
    counts |= {f"crash before: {name}": count for name, count in world.scheduler.crashes.items()}
    counts |= {f"event: {name}": count for name, count in chaos.counts.items()}
    counts["waited for a lock"] = sum("waits for a lock" in line for line in world.scheduler.trace)
    return counts
