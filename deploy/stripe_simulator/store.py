"""Keep every object in one SQLite file, so that a killed simulator comes back knowing what it charged."""

import fcntl
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deploy.stripe_simulator.endpoint import Endpoint
from deploy.stripe_simulator.schema import SCHEMA, SCHEMA_VERSION

Facts = dict[str, Any]  # what an object holds beyond its shape; names that start with _ are never shown

# WAL without fsync survives the death of this process, which is all that is promised, at a tenth of the cost.
# The page cache is bounded: memory does not grow with the number of objects.
PRAGMAS = ("journal_mode = WAL", "synchronous = OFF", "cache_size = -16000", "wal_autocheckpoint = 2000")

CLOCK_SETTING = "clock_ahead_s"

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class StateUnusable(RuntimeError):
    """The state file is taken by another simulator or was written by a newer version."""


class UnknownCursor(LookupError):
    """The object a page should start at does not exist; the argument is its id."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which objects to list: a window in time, a cursor, a size; newest first unless `oldest_first`."""

    limit: int
    after: str | None = None
    before: str | None = None
    created: Mapping[str, int] | None = None  # gt, gte, lt, lte in Unix seconds
    oldest_first: bool = False
    links: Mapping[str, str] | None = None  # only what was inserted with these
    status: str | None = None


_COMPARE = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Store:
    """The state file. Not thread-safe: callers take turns, as they do in an event loop.

    `endpoint` is where events go, None for nowhere; `cause` the id and the idempotency key of the request
    that is being executed, which its events name.
    """

    endpoint: Endpoint | None = None
    cause: tuple[str | None, str | None] = (None, None)

    def __init__(self, path: Path | None) -> None:
        """Open `path`, made if absent; None keeps everything in memory alone. Raises StateUnusable."""
        self._lock = _lock(path) if path else None
        place = path or ":memory:"
        self._db = sqlite3.connect(
            place, isolation_level=None, cached_statements=256, check_same_thread=False
        )
        try:
            self._prepare(place)
        except sqlite3.DatabaseError as error:
            message = f"{place} is not a simulator's state: {error}"
            raise StateUnusable(message) from error

    def _prepare(self, path: Path | str) -> None:
        for pragma in PRAGMAS:
            self._db.execute(f"PRAGMA {pragma}")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version < SCHEMA_VERSION:
            self._db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version > SCHEMA_VERSION:
            message = f"{path} has schema {version}, this simulator writes {SCHEMA_VERSION}: delete it"
            raise StateUnusable(message)
        self.ahead_s: float = self.setting(CLOCK_SETTING) or 0.0

    def close(self) -> None:
        """Close the file and let go of its lock."""
        self._db.close()
        if self._lock:
            self._lock.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what happens inside, or nothing of it when it raises."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def now(self) -> float:
        """Return the simulated time in Unix seconds: this machine's, or ahead of it."""
        return time.time() + self.ahead_s

    def now_s(self) -> int:
        """Return the simulated time in whole Unix seconds, as objects show it."""
        return int(self.now())

    def move_clock(self, ahead_s: float) -> None:
        """Let the simulated time run `ahead_s` ahead of this machine's, also after a restart."""
        self.ahead_s = ahead_s
        self.keep_setting(CLOCK_SETTING, ahead_s)

    def execute(self, sql: str, arguments: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement, for the modules that keep their own table here."""
        return self._db.execute(sql, arguments)

    def insert(
        self,
        kind: str,
        facts: Facts,
        *,
        searchable: bool = False,
        links: Mapping[str, str | None] | None = None,
        status: str | None = None,
    ) -> None:
        """Add an object; a searchable one is found again by its metadata, and by its `links` in lists.

        `status` is what lists select by, if it is not the status of the object itself.
        """
        row = (facts["id"], kind, facts["created"], status or _status(facts), _encode(facts))
        seq = self._db.execute(
            "INSERT INTO objects (id, kind, created, status, facts) VALUES (?, ?, ?, ?, ?)", row
        ).lastrowid
        if searchable:
            rows = [(name, value, seq) for name, value in facts["metadata"].items()]
            self._db.executemany("INSERT INTO metadata (name, value, seq) VALUES (?, ?, ?)", rows)
        if links:
            self._link(seq, links)

    def update(self, facts: Facts) -> None:
        """Replace what is kept of an object; its metadata index and its place in lists stay."""
        sql = "UPDATE objects SET status = ?, facts = ? WHERE id = ?"
        self._db.execute(sql, (_status(facts), _encode(facts), facts["id"]))

    def relink(self, object_id: str, links: Mapping[str, str | None]) -> None:
        """Let an object be listed by these links, and by no other value of theirs."""
        (seq,) = self._db.execute("SELECT seq FROM objects WHERE id = ?", (object_id,)).fetchone()
        self._db.executemany("DELETE FROM links WHERE name = ? AND seq = ?", [(name, seq) for name in links])
        self._link(seq, links)

    def _link(self, seq: int | None, links: Mapping[str, str | None]) -> None:
        rows = [(name, value, seq) for name, value in links.items() if value is not None]
        self._db.executemany("INSERT INTO links (name, value, seq) VALUES (?, ?, ?)", rows)

    def reindex(self, object_id: str, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Let a searchable object be found by the metadata `after` instead of `before`."""
        (seq,) = self._db.execute("SELECT seq FROM objects WHERE id = ?", (object_id,)).fetchone()
        rows = [(name, value, seq) for name, value in before.items()]
        self._db.executemany("DELETE FROM metadata WHERE name = ? AND value = ? AND seq = ?", rows)
        rows = [(name, value, seq) for name, value in after.items()]
        self._db.executemany("INSERT INTO metadata (name, value, seq) VALUES (?, ?, ?)", rows)

    def forget(self) -> None:
        """Delete every object, key and timer; settings and deliveries stay."""
        for table in ("objects", "metadata", "links", "idempotency_keys", "timers"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - fixed words only

    def find(self, kind: str, object_id: str) -> Facts | None:
        """Return the object, or None."""
        return self.find_many(kind, [object_id]).get(object_id)

    def kept_text(self, object_id: str) -> str:
        """Return what is kept of an object as it is kept, in JSON. Raises LookupError."""
        row = self._db.execute("SELECT facts FROM objects WHERE id = ?", (object_id,)).fetchone()
        if row is None:
            raise LookupError(object_id)
        text: str = row[0]
        return text

    def find_many(self, kind: str, object_ids: Sequence[str]) -> dict[str, Facts]:
        """Return the objects that exist among `object_ids`, by id."""
        marks = ",".join("?" * len(object_ids))
        # The + keeps SQLite from walking all objects of the kind when there are many ids.
        sql = f"SELECT id, facts FROM objects WHERE id IN ({marks}) AND +kind = ?"  # noqa: S608 - only marks
        return {
            object_id: json.loads(facts) for object_id, facts in self._db.execute(sql, (*object_ids, kind))
        }

    def page(self, kind: str, page: Page) -> tuple[list[Facts], bool]:
        """Return one page of objects, and whether more follow. Raises UnknownCursor."""
        conditions = ["kind = ?"]
        arguments: list[Any] = [kind]
        for comparison, moment in (page.created or {}).items():
            conditions.append(f"created {_COMPARE[comparison]} ?")
            arguments.append(moment)
        for name, value in (page.links or {}).items():
            conditions.append("seq IN (SELECT seq FROM links WHERE name = ? AND value = ?)")
            arguments += [name, value]
        if page.status is not None:
            conditions.append("status = ?")
            arguments.append(page.status)
        # ending_before walks back from the cursor, so that the page touches it, and is then turned round.
        ascending = page.oldest_first or page.before is not None
        if cursor := page.after or page.before:
            conditions.append(f"(created, seq) {'>' if ascending else '<'} (?, ?)")
            arguments.extend(self._position(kind, cursor))
        direction = "ASC" if ascending else "DESC"
        sql = (
            f"SELECT facts FROM objects WHERE {' AND '.join(conditions)} "  # noqa: S608 - fixed words only
            f"ORDER BY created {direction}, seq {direction} LIMIT ?"
        )
        found, has_more = self._cut(sql, arguments, page.limit)
        return (found[::-1] if page.before else found), has_more

    def _position(self, kind: str, object_id: str) -> tuple[int, int]:
        sql = "SELECT created, seq FROM objects WHERE id = ? AND kind = ?"
        row: tuple[int, int] | None = self._db.execute(sql, (object_id, kind)).fetchone()
        if row is None:
            raise UnknownCursor(object_id)
        return row

    def search(
        self, kind: str, metadata: Sequence[tuple[str, str]], statuses: Sequence[str], page: Page
    ) -> tuple[list[Facts], bool]:
        """Return the newest objects with all of `metadata` and `statuses`, and whether more follow."""
        conditions = ["+o.kind = ?"]  # the + as in find_many
        arguments: list[Any] = [kind]
        for name, value in metadata:
            conditions.append("EXISTS (SELECT 1 FROM metadata WHERE name = ? AND value = ? AND seq = o.seq)")
            arguments += [name, value]
        if metadata:  # start from the index of the first pair instead of walking every object
            conditions[1] = "o.seq IN (SELECT seq FROM metadata WHERE name = ? AND value = ?)"
        for status in statuses:
            conditions.append("o.status = ?")
            arguments.append(status)
        if page.after:
            conditions.append("o.seq < ?")
            arguments.append(self._position(kind, page.after)[1])
        where = " AND ".join(conditions)
        sql = f"SELECT o.facts FROM objects o WHERE {where} ORDER BY o.seq DESC LIMIT ?"  # noqa: S608 - as above
        return self._cut(sql, arguments, page.limit)

    def _cut(self, sql: str, arguments: Sequence[Any], limit: int) -> tuple[list[Facts], bool]:
        rows = self._db.execute(sql, (*arguments, limit + 1)).fetchall()
        return [json.loads(facts) for (facts,) in rows[:limit]], len(rows) > limit

    def setting(self, name: str) -> Any:
        """Return a kept setting, or None."""
        row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep_setting(self, name: str, value: object) -> None:
        """Keep a setting across restarts."""
        sql = "INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)"
        self._db.execute(sql, (name, _encode(value)))


def _status(facts: Facts) -> str:
    status: str = facts.get("status") or facts.get("_status", "")
    return status


def _lock(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(path.name + ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"{path} is in use by another simulator"
        raise StateUnusable(message) from error
    return lock
