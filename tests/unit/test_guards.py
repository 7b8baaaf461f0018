"""The guards that `make mutants` takes away are still where it looks for them."""

import ast

import pytest

from tests.simulation.guards import GUARDS, Guard, changed, guard_named, source_of


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
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
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
