"""Read every revision, and refuse what would stop or break the release that still runs beside it.

While a release is rolled out, the one before it reads and writes the same tables. So a revision only adds
(expands); what takes away (contracts) comes one release later, in a revision that says so: CONTRACT = "why
nothing needs it any more". Indexes on tables that are in use are made and dropped concurrently, outside of a
transaction, and whatever such a revision does beside that can be done twice, for it may stop in the middle.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

VERSIONS: Final = Path(__file__).parents[2] / "shared/migrations/versions"
REVISIONS: Final = sorted(path for path in VERSIONS.glob("*.py") if path.name != "__init__.py")
CONTRACTING: Final = {"drop_column", "drop_table", "rename_table", "create_primary_key", "batch_alter_table"}
CONTRACTING_SQL: Final = re.compile(
    r"\b(DROP\s+(COLUMN|TABLE)|RENAME|SET\s+NOT\s+NULL|TRUNCATE)\b", re.IGNORECASE
)
BLOCKING_SQL: Final = re.compile(r"\b(CREATE(\s+UNIQUE)?|DROP)\s+INDEX\s+(?!CONCURRENTLY)", re.IGNORECASE)
# They look at every row, under a lock, unless told that the rows are looked at later.
VALIDATING: Final = {"create_check_constraint", "create_foreign_key"}


@dataclass(frozen=True)
class Step:
    """One call of Alembic's `op` in a revision."""

    name: str
    call: ast.Call
    outside: bool  # of any transaction

    def option(self, name: str) -> str | None:
        """Return a keyword argument as it is written."""
        return option(self.call, name)

    @property
    def table(self) -> str:
        """The table that an index or constraint belongs to, as it is written."""
        second = self.call.args[1] if len(self.call.args) > 1 else None
        return self.option("table_name") or (ast.unparse(second) if second else "")

    @property
    def sql(self) -> str:
        """Every literal text in the arguments."""
        texts = [each.value for each in ast.walk(self.call) if isinstance(each, ast.Constant)]
        return " ".join(text for text in texts if isinstance(text, str))


class Revision:
    """What the `upgrade` of one revision does."""

    def __init__(self, source: str) -> None:
        """Read the module."""
        body = ast.parse(source).body
        given = {ast.unparse(each.targets[0]): each.value for each in body if isinstance(each, ast.Assign)}
        self.is_first = ast.unparse(given["down_revision"]) == "None"
        reason = given.get("CONTRACT")
        self.contracts = isinstance(reason, ast.Constant) and bool(str(reason.value).strip())
        functions = {each.name: each for each in body if isinstance(each, ast.FunctionDef)}
        self.steps = list(steps(functions["upgrade"]))
        self.made = {ast.unparse(each.call.args[0]) for each in self.steps if each.name == "create_table"}


def steps(node: ast.AST, *, outside: bool = False) -> Iterator[Step]:
    """Yield each call of Alembic's `op`, in the order in which it is written."""
    if isinstance(node, ast.With):
        outside = outside or "autocommit_block" in ast.unparse(node.items[0].context_expr)
    if isinstance(node, ast.Call):
        owner, _, name = ast.unparse(node.func).rpartition(".")
        if owner == "op" and name not in {"f", "get_context"}:
            yield Step(name, node, outside)
    for child in ast.iter_child_nodes(node):
        yield from steps(child, outside=outside)


def option(call: ast.Call, name: str) -> str | None:
    """Return a keyword argument of a call as it is written."""
    return next((ast.unparse(each.value) for each in call.keywords if each.arg == name), None)


def contraction(revision: Revision, step: Step) -> str | None:
    """What the running release may still use is taken away only by a revision that says why it may be."""
    narrows = step.name == "alter_column" and (
        step.option("new_column_name") or step.option("type_") or step.option("nullable") == "False"
    )
    in_sql = step.name == "execute" and CONTRACTING_SQL.search(step.sql)
    takes = step.name in CONTRACTING or narrows or in_sql
    return f'{step.name} needs CONTRACT = "reason"' if takes and not revision.contracts else None


def blocking_index(revision: Revision, step: Step) -> str | None:
    """An index of a table in use is made and dropped without holding up those who write to it."""
    if step.name == "execute" and BLOCKING_SQL.search(step.sql):
        return "an index of plain SQL is not CONCURRENTLY"
    if step.name == "create_unique_constraint" and step.table not in revision.made:
        return "a unique constraint needs an index that was made concurrently before it"
    if step.name not in {"create_index", "drop_index"} or step.table in revision.made:
        return None
    if step.option("postgresql_concurrently") == "True" and step.outside:
        return None
    return f"{step.name} is not postgresql_concurrently=True inside autocommit_block()"


def demanding_column(_: Revision, step: Step) -> str | None:
    """A column that the running release does not know has a default, or may be null."""
    if step.name != "add_column" or not isinstance(column := step.call.args[1], ast.Call):
        return None
    filled = option(column, "server_default") or re.search(r"(Identity|Computed)\(", ast.unparse(column))
    demands = option(column, "nullable") == "False" and not filled
    return "a new column that may not be null needs a server_default" if demands else None


def scanning_constraint(revision: Revision, step: Step) -> str | None:
    """A constraint on a table in use is added NOT VALID, which looks at no row and holds nobody up."""
    scans = step.name in VALIDATING and step.table not in revision.made
    late = step.option("postgresql_not_valid") == "True"
    return f"{step.name} is not postgresql_not_valid=True" if scans and not late else None


def unrepeatable(revision: Revision, step: Step) -> str | None:
    """Beside concurrent work, which nothing rolls back, everything can be done a second time."""
    if step.name == "execute" or not any(each.outside for each in revision.steps):
        return None
    repeatable = "True" in {step.option("if_not_exists"), step.option("if_exists")}
    return None if repeatable else f"{step.name} needs if_not_exists or if_exists, to be done again"


RULES: Final = (contraction, blocking_index, demanding_column, scanning_constraint, unrepeatable)


def broken(source: str) -> list[str]:
    """Return what a revision's upgrade does against the rules; the first one meets an empty database."""
    revision = Revision(source)
    if revision.is_first:
        return []
    found = (rule(revision, step) for step in revision.steps for rule in RULES)
    return [each for each in found if each]


@pytest.mark.parametrize("path", REVISIONS, ids=lambda path: path.stem)
def test_revision_keeps_the_running_release_running(path: Path) -> None:
    """No revision takes away, rewrites or locks what the release before it is using."""
    assert broken(path.read_text()) == []


def revision(*lines: str, head: str = 'down_revision = "0001"', concurrently: bool = False) -> str:
    """Write a revision whose upgrade has these lines."""
    block = ["    with op.get_context().autocommit_block():"] if concurrently else []
    indent = " " * (8 if concurrently else 4)
    return "\n".join([head, "def upgrade():", *block, *(indent + line for line in lines)])


CONCURRENT: Final = 'op.create_index("i", "payment", ["x"], postgresql_concurrently=True, if_not_exists=True)'


@pytest.mark.parametrize(
    "line",
    [
        'op.drop_column("payment", "x")',
        'op.drop_table("payment")',
        'op.rename_table("payment", "x")',
        'op.alter_column("payment", "x", new_column_name="y")',
        'op.alter_column("payment", "x", nullable=False)',
        'op.alter_column("payment", "x", type_=sa.Text())',
        'op.execute("ALTER TABLE payment DROP COLUMN x")',
        'op.execute(sa.text("alter table payment rename column x to y"))',
        'op.execute(f"ALTER TABLE {name} ALTER x SET NOT NULL")',
    ],
)
def test_taking_away_needs_a_reason(line: str) -> None:
    """What contracts the schema is refused without a reason, and with an empty one, and allowed with one."""
    head = 'down_revision = "0001"\nCONTRACT = '
    assert broken(revision(line))
    assert broken(revision(line, head=head + '" "'))
    assert broken(revision(line, head=head + '"unused since 0.3"')) == []


@pytest.mark.parametrize(
    "line",
    [
        'op.create_index("i", "payment", ["x"])',
        'op.drop_index("i", table_name="payment")',
        'op.create_index("i", "payment", ["x"], postgresql_concurrently=True)',
        'op.create_unique_constraint("u", "payment", ["x"])',
        'op.execute("CREATE UNIQUE INDEX i ON payment (x)")',
        'op.add_column("payment", sa.Column("x", sa.Text(), nullable=False))',
        'op.create_check_constraint("c", "payment", "x > 0")',
        'op.create_foreign_key("f", "payment", "other", ["x"], ["id"])',
    ],
)
def test_holding_others_up_is_refused(line: str) -> None:
    """What locks a table that is in use, or fails its writers, is refused even with a reason to contract."""
    head = 'down_revision = "0001"\nCONTRACT = "a reason"'
    assert broken(revision(line, head=head))
    assert broken(revision(line, head="down_revision = None")) == []


@pytest.mark.parametrize(
    "lines",
    [
        ['op.add_column("payment", sa.Column("x", sa.Text(), nullable=True))'],
        ['op.add_column("payment", sa.Column("x", sa.Text(), nullable=False, server_default=""))'],
        ['op.create_check_constraint("c", "payment", "x > 0", postgresql_not_valid=True)'],
        ['op.execute("ALTER TABLE payment VALIDATE CONSTRAINT c")'],
        ['op.create_table("new", sa.Column("x", sa.Text()))', 'op.create_index("i", "new", ["x"])'],
    ],
)
def test_adding_is_allowed(lines: list[str]) -> None:
    """What only expands, and looks at no row under a lock, needs no reason."""
    assert broken(revision(*lines)) == []


def test_concurrent_indexes_and_what_stands_beside_them() -> None:
    """They are made outside of a transaction, and everything beside them can be done again."""
    assert broken(revision(CONCURRENT, concurrently=True)) == []
    assert broken(revision(CONCURRENT))
    once = 'op.create_index("i", "payment", ["x"], postgresql_concurrently=True)'
    assert broken(revision(once, concurrently=True))
    table = revision('op.create_table("new", sa.Column("x", sa.Text()))')
    assert broken(f"{table}\n    with op.get_context().autocommit_block():\n        {CONCURRENT}")
    table = revision('op.create_table("new", sa.Column("x", sa.Text()), if_not_exists=True)')
    assert broken(f"{table}\n    with op.get_context().autocommit_block():\n        {CONCURRENT}") == []
