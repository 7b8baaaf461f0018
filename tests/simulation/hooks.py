"""Points in every statement, commit and rollback of an engine; and who holds which connection."""

from typing import Any

from sqlalchemy import Connection, Engine, event

from tests.simulation.schedule import Scheduler, where


def watch(engine: Engine, scheduler: Scheduler) -> None:
    """Let the scheduler decide before each statement and commit of this engine."""
    _watch_pool(engine, scheduler)
    _watch_statements(engine, scheduler)
    _watch_ends(engine, scheduler)


def _watch_pool(engine: Engine, scheduler: Scheduler) -> None:
    @event.listens_for(engine, "checkout")
    def _took(connection: Any, _record: object, _proxy: object) -> None:
        if actor := scheduler.here:
            actor.backends.append(connection.info.backend_pid)

    @event.listens_for(engine, "checkin")
    def _gave_back(connection: Any, _record: object) -> None:
        actor = scheduler.here
        if actor and connection is not None and connection.info.backend_pid in actor.backends:
            actor.backends.remove(connection.info.backend_pid)


def _watch_statements(engine: Engine, scheduler: Scheduler) -> None:
    @event.listens_for(engine, "before_execute")
    def _before(connection: Connection, *_: object) -> None:
        if scheduler.here is None:
            return
        place = where()
        scheduler.point(f"statement of {place}")
        scheduler.note(place)
        raw: Any = connection.connection.dbapi_connection
        scheduler.began(raw.info.backend_pid)

    @event.listens_for(engine, "after_cursor_execute")
    def _after(connection: Connection, *_: object) -> None:
        scheduler.ended()
        raw: Any = connection.connection.dbapi_connection
        if raw.autocommit:
            scheduler.released()

    @event.listens_for(engine, "handle_error")
    def _failed(context: Any) -> None:
        if "deadlock" in str(context.original_exception):
            scheduler.deadlocks += 1
        scheduler.ended()


def _watch_ends(engine: Engine, scheduler: Scheduler) -> None:
    @event.listens_for(engine, "commit")
    def _commit(_: Connection) -> None:
        scheduler.point(f"commit of {where()}")

    dialect: Any = engine.dialect
    for name in ("do_commit", "do_rollback"):
        setattr(dialect, name, _ending(getattr(dialect, name), scheduler))


def _ending(end: Any, scheduler: Scheduler) -> Any:
    def ends(connection: Any) -> None:
        end(connection)
        scheduler.released()

    return ends
