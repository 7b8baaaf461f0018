"""After the chaos: nothing goes wrong any more, time passes, and everything open has to come to an end."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from shared.commands.pause import resume
from shared.payments import OperationKind
from tests.simulation.doors import Doors
from tests.simulation.world import COMMAND_TOPICS, COMMANDS, REQUEST_TOPICS, REQUESTS, VERIFY_ABSENCE_S, World

ROUNDS_MAX: Final = 120
_DUE: Final = """
    SELECT 'operation', min(greatest(next_attempt_at, lease_until)) FROM operation
    WHERE next_attempt_at IS NOT NULL AND NOT (state = 'requires_action' AND kind IN ('charge', 'authorize'))
    UNION ALL
    SELECT 'doubt', min(greatest(
        coalesce(absent_since + make_interval(secs => %s), doubt_since), coalesce(lease_until, doubt_since)
    )) FROM operation WHERE doubt_since IS NOT NULL
    UNION ALL
    SELECT 'inbox', min(next_attempt_at) FROM inbox WHERE next_attempt_at IS NOT NULL
    UNION ALL
    SELECT 'deadline', min(expires_at) FROM payment WHERE status = 'requires_action'
    UNION ALL
    SELECT 'outbox', min(created_at) FROM outbox WHERE parked_reason IS NULL
"""


def drain(world: World, doors: Doors | None = None) -> bool:
    """Bring everything to rest, once it is calm; False when it does not come to rest."""
    return any(not _round(world, doors) for _ in range(ROUNDS_MAX))


def calm_down(world: World) -> None:
    """Nothing goes wrong from now on; whoever is in the middle of something finishes it."""
    scheduler = world.scheduler
    scheduler.crash_share = scheduler.switch_share = 0.0
    world.weather.shares = {}
    for name in ("lost_report", "not_taken", "twice", "lost_commit", "away"):
        setattr(world.troubles, name, 0.0)
    while scheduler.actors:
        world.turn(scheduler.holder() or scheduler.actors[0])
    scheduler.note("--- calm ---")


def calm(world: World) -> None:
    """Nothing goes wrong any more, and nothing is halted or on its way."""
    calm_down(world)
    while world.network.late:
        world.network.arrive(0)
    world.witness.halts.clear()
    world.whole("resume", lambda: resume(world.harness.sessions, list(OperationKind)))


def spell(world: World, doors: Doors | None = None) -> None:
    """A while in which nothing goes wrong, so that what comes after finds payments at all stages."""
    scheduler, weather, troubles = world.scheduler, world.weather, world.troubles
    before = scheduler.crash_share, scheduler.switch_share, weather.shares, vars(troubles).copy()
    calm_down(world)
    for _ in range(2):
        world.whole("relay", world.carry)
        _deliver(world, doors)
        while world.queue.errands:
            errand = world.queue.errands.pop(0)
            world.whole("task", partial(world.work_off, world.workers[0], errand))
    scheduler.note("--- the spell ends ---")
    scheduler.crash_share, scheduler.switch_share, weather.shares = before[:3]
    vars(troubles).update(before[3])


def _round(world: World, doors: Doors | None) -> bool:
    """Do everything that is due, or let time pass until something is; False when nothing ever will be."""
    _deliver(world, doors)
    due = _due(world) | (doors.due() if doors else {})
    now = world.clock.now() + timedelta(seconds=1)
    is_due = {name for name, at in due.items() if at <= now}
    _work_off(world, is_due)
    if doors:
        doors.work_off(is_due)
    if is_due:
        # Something that is due may wait for another second: a lease, or its turn.
        world.advance(1.0)
    elif due:
        world.advance(max(0.0, (min(due.values()) - world.clock.now()).total_seconds()) + 0.01)
    return bool(due) or bool(world.waiting_webhooks())


def _work_off(world: World, is_due: set[str]) -> None:
    worker = world.workers[0]
    if "outbox" in is_due:
        world.whole("relay", world.carry)
    if "operation" in is_due and not world.queue.errands:
        world.whole("sweep", world.recover)
    while world.queue.errands:
        errand = world.queue.errands.pop(0)
        world.whole("task", partial(world.work_off, worker, errand))
    if "doubt" in is_due:
        world.whole("look", lambda: world.verify(worker))
    if "inbox" in is_due:
        world.whole("inbox", lambda: world.drain_inbox(worker))
    if "deadline" in is_due:
        world.whole("deadlines", lambda: world.keep_deadlines(worker))


def _deliver(world: World, doors: Doors | None) -> None:
    if doors:
        doors.deliver()
    for sequence, event_id, kind in world.waiting_webhooks():
        world.whole(f"webhook {kind}", partial(world.take_webhook, event_id, sequence, keep=False))
    for kind, topics in ((COMMANDS, COMMAND_TOPICS), (REQUESTS, REQUEST_TOPICS)):
        if world.broker.lag(kind, topics):
            world.whole(kind, partial(world.consume, kind))


def _due(world: World) -> dict[str, datetime]:
    """When the next of each kind is due, of those kinds that wait for something."""
    rows: list[Any] = world.query(_DUE, VERIFY_ABSENCE_S)
    return {name: at for name, at in rows if at is not None}
