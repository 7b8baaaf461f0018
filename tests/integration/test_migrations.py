"""The schema changes beneath a running service: both ways, on data, and without holding up others."""

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import grimp
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from psycopg import sql
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from deploy.local.parts import program
from payment_worker.queues import RECOVER, RECOVERY_QUEUE, make_celery
from shared import migrations
from shared.database import driver_url
from shared.models import Table
from shared.settings import Settings
from tests.api import ServedApi, Stored
from tests.conftest import Servers
from tests.operating import migrate_in_vain
from tests.waiting import LONGEST_S
from tests.worker import make_bench

REVISIONS: Final = list(ScriptDirectory.from_config(migrations.config()).walk_revisions())[
    ::-1
]  # oldest first
HEAD: Final = REVISIONS[-1].revision
LOCK_TIMEOUT_S: Final = 2
DECLINED_MINOR: Final = 1013
CLIENTS_KEY: Final = """
    INSERT INTO idempotency_key (principal, key, request_hash, payment_id, created_at)
    SELECT 'local', id::text, 'hash', id, created_at FROM payment"""
PAUSE: Final = "INSERT INTO pause (kind, since, actor) VALUES ('charge', now(), 'operator')"
VIOLATION = "INSERT INTO invariant_violation VALUES ('timeline_has_no_gap', gen_random_uuid(), now())"
PASS = "INSERT INTO invariant_pass (name, turn_at) VALUES ('all', now())"
REDRIVE = """
    INSERT INTO redrive (letter_id, topic, partition, "offset", reason, actor, created_at, delivered_at)
    VALUES (gen_random_uuid(), 'refund-payment', 0, 1, 'failed', 'somebody', now(), now())
"""
WEBHOOK: Final = """
    INSERT INTO inbox (source, message_id, type, payload, state, next_attempt_at, received_at)
    VALUES ('stripe', 'evt_1', 'charge.refunded', '{}', 'received', now(), now())"""
CUSTOMER: Final = """
    INSERT INTO customer (id, email, key_number, key_since, owner, created_at)
    VALUES (gen_random_uuid(), 'a@example.com', 1, now(), 'local', now())"""
CARD: Final = """
    INSERT INTO saved_card (id, customer_id, token, is_default, key_number, key_since, created_at)
    SELECT id, id, 'pm_1', false, 1, now(), now() FROM customer"""
REVOKED: Final = "INSERT INTO revoked_token (token_id, expires_at, revoked_at) VALUES ('x', now(), now())"
AUDITED: Final = """
    INSERT INTO audit_entry (id, at, actor, channel, action, subject, came_from, correlation_id)
    VALUES (gen_random_uuid(), now(), 'ada', 'command', 'pause', '{}', 'host', 'x')"""
RESERVATION: Final = """
    INSERT INTO reservation (id, customer_id, status, expires_at, changed_at)
    VALUES ('r-1', 'c-1', 'active', now(), now())"""
ADJUSTMENT: Final = """
    INSERT INTO inventory_adjustment (message_id, product, received_at) VALUES ('m-1', 'p-1', now())"""
SUBSCRIBER: Final = """
    INSERT INTO notification_endpoint (id, owner, url, state, sealed_secret, created_at)
    VALUES (gen_random_uuid(), 'a shop', 'https://shop.example/', 'enabled', 'sealed', now())"""
NOTIFICATION: Final = """
    INSERT INTO notification_event (event_id, position, payment_id, sequence, type)
    SELECT announced_id, sequence, payment_id, sequence, announced_type
      FROM timeline_entry WHERE announced_id IS NOT NULL"""
DELIVERY: Final = """
    INSERT INTO notification_delivery
           (endpoint_id, event_id, payment_id, sequence, type, stream, place, state, next_attempt_at,
            created_at)
    SELECT endpoint.id, event_id, payment_id, sequence, type, payment_id::text, sequence,
           'pending', now(), now()
      FROM notification_event CROSS JOIN notification_endpoint AS endpoint"""
CALLBACK: Final = "INSERT INTO order_callback (payment_id, order_id) SELECT id, order_id FROM payment"
RUN: Final = """
    INSERT INTO reconciliation_run (id, since, until, scheduled, heals, applies, after_restore, actor, phase,
                                    step, counts, began_at, moved_at)
    VALUES (gen_random_uuid(), now(), now() + interval '1 day', true, false, false, false, 'local', 'charges',
            1, '{}', now(), now())"""
SEEN: Final = "INSERT INTO reconciliation_seen (run_id, ref) SELECT id, 'pi_1' FROM reconciliation_run"
BREAK: Final = """
    INSERT INTO reconciliation_break (id, object, ref, kind, reason, run_id, last_run_id, first_seen,
                                      last_seen)
    SELECT id, 'charge', 'ch_1', 'amount', 'less', id, id, now(), now() FROM reconciliation_run"""
RESTORE: Final = """
    INSERT INTO restore (id, backup_taken_at, marked_at, actor)
    VALUES (gen_random_uuid(), now(), now(), 'local')"""
ACCOUNT: Final = """
    INSERT INTO account
    (id, email_fingerprint, email_sealed, name_sealed, phone_sealed, password_hash, created_at)
    VALUES (gen_random_uuid(), 'a', 'b', 'c', 'd', 'e', now())"""
FAILED: Final = "INSERT INTO failed_logins (subject, count, ends_at) VALUES ('a', 1, now())"
DOUBT: Final = "UPDATE operation SET needs_review = true, doubt_since = now() WHERE state = 'in_flight'"
PARK: Final = "UPDATE outbox SET parked_reason = 'test' WHERE position = (SELECT min(position) FROM outbox)"

# Everything that says how a table behaves, except the order of its columns.
CATALOG: Final = """
    SELECT relname AS "table", 'column' AS sort, attname::text AS name,
           concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity,
                     pg_get_expr(adbin, adrelid)) AS definition
      FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
      LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT relname, 'constraint', conname, pg_get_constraintdef(pg_constraint.oid) || convalidated
      FROM pg_constraint JOIN pg_class ON conrelid = pg_class.oid
     WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT indrelid::regclass::text, 'index', pg_class.relname, pg_get_indexdef(indexrelid) || indisvalid
      FROM pg_index JOIN pg_class ON indexrelid = pg_class.oid
     WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT relname, 'options', relname, reloptions::text FROM pg_class
     WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""


def catalog(database_url: str) -> set[tuple[str, ...]]:
    """Return what the database says of its own tables, Alembic's excepted."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(CATALOG).fetchall()
    return {row for row in rows if row[0] != "alembic_version"}


# What is sealed is nowhere else: taken back, its revision leaves it there, and plain columns may be empty.
LEFT_BEHIND: Final = {
    *(("payment", "payment_method_sealed"), ("operation", "request_sealed")),
    *(("customer", name) for name in ("email_fingerprint", "email_sealed", "name_sealed")),
    *(("saved_card", name) for name in ("token_fingerprint", "token_sealed", "cardholder_name_sealed")),
    *(("customer", "email"), ("customer", "customer_email_not_null")),
    *(("saved_card", "token"), ("saved_card", "saved_card_token_not_null")),
}


def taken_back(rows: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Leave out what a later revision leaves behind when it is taken back."""
    return {row for row in rows if (row[0], row[2]) not in LEFT_BEHIND}


def counts(database_url: str, names: set[str]) -> dict[str, int]:
    """Return the number of rows of each of these tables."""
    query = sql.SQL("SELECT count(*) FROM {}")
    with psycopg.connect(database_url) as connection:
        cursors = {name: connection.execute(query.format(sql.Identifier(name))) for name in names}
        return {name: row[0] for name, cursor in cursors.items() for row in cursor}


def tables(database_url: str) -> set[str]:
    """Return the names of a database's tables."""
    with psycopg.connect(database_url) as connection:
        return {
            row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname='public'")
        }


def revision_of(database_url: str) -> str:
    """Return the revision that a database is at."""
    with psycopg.connect(database_url) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])  # type: ignore[index]


@contextmanager
def long_transaction(database_url: str) -> Iterator[None]:
    """Have a transaction open that writes to every table, as one does that hangs."""
    with psycopg.connect(database_url) as connection:
        for name in tables(database_url) & set(Table.metadata.tables):
            connection.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(sql.Identifier(name)))
        yield


@pytest.fixture
def empty_database_url(servers: Servers) -> Iterator[str]:
    """Return the libpq URL of a database without any table."""
    name = f"empty_{uuid.uuid4().hex}"
    servers.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield servers.database(name)
    servers.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def filled(settings: Settings) -> Stored:
    """Return a database with payments in every state of their life, and a row in every table."""
    stored = Stored(settings.database_url)
    with make_bench(settings) as bench:
        for amount_minor in (2500, DECLINED_MINOR):
            bench.attempt(bench.order(amount_minor))
        bench.attempt(bench.order(), fault="lost_response")
        bench.order()
        bench.engine.dispose()
    told = (RESERVATION, ADJUSTMENT, SUBSCRIBER, NOTIFICATION, DELIVERY, CALLBACK)
    others = (REVOKED, AUDITED, REDRIVE, RUN, SEEN, BREAK, RESTORE, VIOLATION, PASS, ACCOUNT, FAILED, *told)
    for statement in (CLIENTS_KEY, PAUSE, DOUBT, PARK, WEBHOOK, CUSTOMER, CARD, *others):
        stored.change(statement)
    states = {row["state"] for row in stored.rows("operation")}
    assert states == {"succeeded", "failed", "in_flight", "requested"}
    assert set(stored.counts()) == set(Table.metadata.tables)  # a new table is to be filled here
    return stored


@pytest.mark.parametrize("script", REVISIONS, ids=lambda script: script.revision)
def test_revision_goes_down_and_up_again_on_data(filled: Stored, script: Script) -> None:
    """A revision can be taken back and made again beneath rows, which loses none that it did not bring."""
    url = filled.database_url
    migrations.downgrade(url, script.revision)
    before, kept = catalog(url), counts(url, tables(url))
    below = script.down_revision or "base"
    migrations.downgrade(url, str(below))
    survivors = tables(url) - {"alembic_version"}
    assert (survivors == set()) == (below == "base")
    assert counts(url, survivors) == {name: kept[name] for name in survivors}
    migrations.upgrade(url, script.revision)
    assert taken_back(catalog(url)) == taken_back(before)
    migrations.upgrade(url)
    assert revision_of(url) == HEAD


def test_there_is_one_line_of_revisions() -> None:
    """Each revision follows the one before it, and upgrading has one end."""
    numbers = [script.revision for script in REVISIONS]
    assert numbers == sorted(numbers)
    assert [script.down_revision for script in REVISIONS] == [None, *numbers[:-1]]


def test_models_and_migrations_agree(database_url: str, empty_database_url: str) -> None:
    """The tables that the revisions make are those of the models, down to constraints and options."""
    engine = create_engine(driver_url(database_url))
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()
    modelled = create_engine(driver_url(empty_database_url))
    Table.metadata.create_all(modelled)
    modelled.dispose()
    assert catalog(database_url) == catalog(empty_database_url)


def test_a_migration_waits_two_seconds_for_a_table(database_url: str) -> None:
    """Behind a long transaction it gives up, lest everyone queue behind it, and leaves all as it was."""
    before = catalog(database_url)
    with long_transaction(database_url):
        began = time.monotonic()
        with pytest.raises(OperationalError, match="lock timeout"):
            migrations.downgrade(database_url, "base")
        assert time.monotonic() - began >= LOCK_TIMEOUT_S
    assert {row for row in before if row[0] == "payment"} <= catalog(database_url)


def test_the_migrating_session_has_this_limit(database_url: str) -> None:
    """The limit holds for the work itself, whatever was set while waiting for another migration."""
    seen: list[Any] = []
    migrations._run(
        database_url,
        lambda alembic: seen.append(alembic.attributes["connection"].scalar(text("SHOW lock_timeout"))),
    )
    assert seen == [f"{LOCK_TIMEOUT_S}s"]


def only_adds_tables(before: set[tuple[str, ...]], after: set[tuple[str, ...]]) -> bool:
    """Tell whether no table that was there before is touched, not even by a foreign key."""
    added = after - before
    refers = any("REFERENCES" in str(row[-1]) for row in added)
    return before <= after and not refers and not {row[0] for row in added} & {row[0] for row in before}


@pytest.mark.parametrize("script", REVISIONS[1:], ids=lambda script: script.revision)
def test_an_interrupted_migration_can_be_run_again(filled: Stored, script: Script) -> None:
    """A revision that gave up halfway, behind a long transaction, is completed by the next run."""
    url = filled.database_url
    migrations.downgrade(url, script.revision)
    wanted = catalog(url)
    migrations.downgrade(url, str(script.down_revision))
    waits_for_nobody = only_adds_tables(catalog(url), wanted)
    with long_transaction(url):
        if waits_for_nobody:
            migrations.upgrade(url, script.revision)
        else:
            with pytest.raises(OperationalError, match="lock timeout"):
                migrations.upgrade(url, script.revision)
    migrations.upgrade(url, script.revision)
    assert taken_back(catalog(url)) == taken_back(wanted)


def test_two_that_migrate_at_once_both_succeed(filled: Stored) -> None:
    """Several machines may deploy at the same time: one migrates, and the others find it done."""
    url = filled.database_url
    wanted = catalog(url)
    migrations.downgrade(url, REVISIONS[0].revision)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(migrations.upgrade, url) for _ in range(4)]:
            done.result(LONGEST_S)
    assert catalog(url) == wanted


def test_a_schema_of_a_later_release_is_refused(database_url: str) -> None:
    """At once, in one line that names its revision; status 1, and the schema stays as it was."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = catalog(database_url)
    told = json.loads(migrate_in_vain(database_url).splitlines()[-1])
    assert (told["event"], told["level"]) == ("not migrated", "error")
    assert "9999" in told["reason"]
    assert "exception" not in told
    assert catalog(database_url) == before


def test_serving_never_migrates(empty_database_url: str, redis_url: str) -> None:
    """An API before its database is migrated is alive, says that it is not ready, and creates nothing."""
    api = ServedApi(empty_database_url, redis_url)
    try:
        assert api.get("/healthz").status == 200
        assert api.get("/readyz").status == 503
        assert api.post_async().status >= 500
        assert tables(empty_database_url) == set()
    finally:
        api.close()


@pytest.mark.parametrize("command", ["relay", "tasks"])
def test_working_never_migrates(
    command: str, empty_database_url: str, settings: Settings, environment: dict[str, str]
) -> None:
    """A worker process that comes before the migration looks for its tables and creates none."""
    make_celery(settings).send_task(RECOVER, queue=RECOVERY_QUEUE)
    variables = {**os.environ, **environment, "DATABASE_URL": empty_database_url}
    with subprocess.Popen(
        [program("payment-worker"), command], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            assert process.stdout is not None
            assert any(b"UndefinedTable" in line for line in process.stdout)
            assert tables(empty_database_url) == set()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=LONGEST_S)


def test_only_one_command_knows_the_migrations() -> None:
    """No module of a process imports them, neither at its top nor in a function."""
    graph = grimp.build_graph("shared", "payment_api", "payment_worker", include_external_packages=True)
    users = graph.find_modules_that_directly_import("shared.migrations")
    users |= graph.find_modules_that_directly_import("alembic")
    assert {each for each in users if not each.startswith("shared.migrations")} == {"payment_api.cli"}
