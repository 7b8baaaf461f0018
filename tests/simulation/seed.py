"""One seed from its beginning to its end: chaos, with looks in between, then rest, then the last look."""

import hashlib
from dataclasses import dataclass, field

from tests.simulation.chaos import Chaos
from tests.simulation.door_invariants import broken_at_doors
from tests.simulation.doors import Doors, doors_of
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
    doors = doors_of(world, shop, seed)
    chaos = Chaos(world, shop, doors)
    try:
        found = _simulate(world, shop, chaos, doors)
    finally:
        _leave(world)
    counts = _counts(world, shop, chaos) | (doors.counts() if doors else {})
    return Run(seed, list(world.scheduler.trace), found, counts)


def _simulate(world: World, shop: Shop, chaos: Chaos, doors: Doors | None) -> list[tuple[str, str]]:
    for _ in range(LOOKS):
        chaos.some_steps()
        if found := _look(world, shop, doors, at_rest=False):
            return found
        if world.chance.random() < SPELLS:
            spell(world, doors)
    calm(world)
    if doors:
        doors.calm()
    if world.broker.losses:
        shop.send_messages_again()
        if doors:
            doors.notices.tell_everything_again()
    if not drain(world, doors):
        late = [(EVERYTHING_COMES_TO_REST, "something is due for ever")]
        return [*late, *_look(world, shop, doors, at_rest=True)]
    return _look(world, shop, doors, at_rest=True)


def _look(world: World, shop: Shop, doors: Doors | None, *, at_rest: bool) -> list[tuple[str, str]]:
    view = take(world, shop)
    found = broken(view, at_rest=at_rest)
    if doors:
        found += broken_at_doors(view, doors, at_rest=at_rest)
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
