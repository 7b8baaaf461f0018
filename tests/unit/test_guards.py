"""The guards that `make mutants` takes away are still where it looks for them."""

import ast

import pytest

from tests.simulation.door_guards import DOOR_GUARDS
from tests.simulation.guards import GUARDS, Guard, changed, guard_named, source_of
from tests.simulation.mutants import BEGIN, END, README, told

EVERY_GUARD = (*GUARDS, *DOOR_GUARDS)


@pytest.mark.parametrize("guard", EVERY_GUARD, ids=lambda guard: guard.name)
def test_a_guard_can_be_taken_away(guard: Guard) -> None:
    """Each text stands exactly once in its module, and what is left without it is still Python."""
    for module, changes in guard.changes.items():
        source = source_of(module).read_text(encoding="utf-8")
        without = changed(source, changes)
        assert without != source
        ast.parse(without)
    assert guard.changes or guard.statements


def test_a_guard_that_has_moved_is_missed() -> None:
    """A text that is not there, or more than once, is no silent success."""
    for source in ("nothing", "a guard and a guard"):
        with pytest.raises(LookupError):
            changed(source, [("a guard", "")])
    with pytest.raises(LookupError):
        guard_named("no such guard")


def test_names_differ() -> None:
    """A guard is chosen by its name."""
    assert len({guard.name for guard in EVERY_GUARD}) == len(EVERY_GUARD)


def test_the_readme_tells_of_guards_that_there_are() -> None:
    """Its table names guards as they are called here, and a run's find takes the place of that row alone."""
    text = README.read_text(encoding="utf-8")
    assert told(text, [], 600) == text
    rows = text.partition(BEGIN)[2].partition(END)[0].splitlines()[2:]
    assert rows
    assert {row.split(" | ")[0][2:] for row in rows} <= {each.name for each in EVERY_GUARD}
    found = told(text, [(GUARDS[1], {"seed": 98, "broken": [["nothing breaks", ""]]})], 600).splitlines()
    assert set(found) - set(text.splitlines()) == {f"| {GUARDS[1].name} | 99 | nothing breaks |"}
