"""Sealing: what is stored tells nothing, cannot be changed or swapped, and outlives a change of keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.sealing import CannotOpen, NoKey, Sealer
from shared.settings import Settings
from tests.keys import DATA_KEY

OLD, NEW, STRANGE = (f"{each} key of thirty-two bytes at least" for each in ("an old", "a new", "a strange"))
TOKEN = "pm_1QrT5vXyZ0123456789"


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_what_was_sealed_is_opened(text: str, about: str) -> None:
    """Any text, an empty one and one of other scripts too."""
    sealer = Sealer(DATA_KEY)
    assert sealer.open(sealer.seal(text, about), about) == text


def test_a_sealed_value_tells_nothing() -> None:
    """Neither the text nor, by comparing two, that they are the same."""
    sealer = Sealer(DATA_KEY)
    sealed = sealer.seal(TOKEN)
    assert TOKEN.encode() not in sealed
    assert sealed != sealer.seal(TOKEN)
    assert len(sealed) == len(sealer.seal("x" * len(TOKEN)))


def test_every_changed_byte_is_noticed() -> None:
    """A value that is not as it was sealed is refused, whichever byte of it was changed or cut off."""
    sealer = Sealer(DATA_KEY)
    sealed = sealer.seal(TOKEN)
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        for each in (changed, sealed[:at]):
            with pytest.raises(CannotOpen) as refused:
                sealer.open(each)
            assert TOKEN not in str(refused.value)


def test_a_value_is_opened_only_as_what_it_was_sealed_as() -> None:
    """Whoever can write to the database cannot pass one kind of value off as another."""
    sealer = Sealer(DATA_KEY)
    with pytest.raises(CannotOpen):
        sealer.open(sealer.seal(TOKEN, "saved_card.token"), "account.phone")


def test_a_key_is_replaced_in_steps_that_may_overlap() -> None:
    """While one process still has the keys the other way round, each opens what the other has sealed."""
    before, first, then, after = Sealer(OLD), Sealer(OLD, NEW), Sealer(NEW, OLD), Sealer(NEW)
    of_old, of_new = first.seal(TOKEN), then.seal(TOKEN)
    for sealer in (before, first, then):
        assert sealer.open(of_old) == TOKEN
    for sealer in (first, then, after):
        assert sealer.open(of_new) == TOKEN
    assert [then.is_current(each) for each in (of_old, of_new)] == [False, True]
    assert [first.is_current(each) for each in (of_old, of_new)] == [True, False]
    for sealer, sealed in ((before, of_new), (after, of_old), (Sealer(STRANGE), of_new)):
        with pytest.raises(CannotOpen, match="DATA_KEY"):
            sealer.open(sealed)


def test_a_fingerprint_finds_a_text_and_needs_the_key() -> None:
    """The same for the same text about the same thing; with other keys, texts or things another."""
    sealer = Sealer(DATA_KEY)
    print_ = sealer.fingerprint("ada@shop.example", "email")
    assert print_ == sealer.fingerprint("ada@shop.example", "email")
    others = {
        sealer.fingerprint("bob@shop.example", "email"),
        sealer.fingerprint("ada@shop.example", "phone"),
        Sealer(STRANGE).fingerprint("ada@shop.example", "email"),
    }
    assert len(others | {print_}) == 4


def test_what_was_stored_before_a_change_of_keys_is_still_found() -> None:
    """Under both keys' fingerprints, the current one's first, whichever way round they are set."""
    old, new = (Sealer(each).fingerprint(TOKEN, "token") for each in (OLD, NEW))
    assert Sealer(NEW, OLD).fingerprints(TOKEN, "token") == [new, old]
    assert Sealer(OLD, NEW).fingerprints(TOKEN, "token") == [old, new]
    assert Sealer(NEW).fingerprints(TOKEN, "token") == [new]


def test_without_a_key_nothing_is_sealed() -> None:
    """An error that names the setting, and never a value that is stored as it is."""
    sealer = Sealer.of(Settings(data_key_previous=OLD))
    for act in (
        lambda: sealer.seal(TOKEN),
        lambda: sealer.fingerprint(TOKEN, "token"),
        lambda: sealer.fingerprints(TOKEN, "token"),
    ):
        with pytest.raises(NoKey, match="DATA_KEY"):
            act()
    assert sealer.open(Sealer(OLD).seal(TOKEN)) == TOKEN
