"""Passwords: only hashes are kept, wrong ones cost what right ones do, and few are looked at at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from argon2 import extract_parameters

from shared.accounts import TooBusy
from shared.passwords import AT_ONCE, MEMORY_KIB, TIME_COST, Passwords
from tests.waiting import LONGEST_S

PASSWORD = "correct horse battery staple"
LITTLE_KIB = 64
SOON_S = 30


@pytest.fixture(scope="module")
def passwords() -> Passwords:
    """Return what the API uses, with little work."""
    return Passwords(time_cost=1, memory_kib=LITTLE_KIB)


@contextmanager
def all_turns_taken(passwords: Passwords) -> Iterator[None]:
    """Have as many passwords looked at as may be at once."""
    for _ in range(AT_ONCE):
        assert passwords._turns.acquire(timeout=LONGEST_S)
    yield
    for _ in range(AT_ONCE):
        passwords._turns.release()


def test_a_password_is_recognised_by_its_hash(passwords: Passwords) -> None:
    """And no other one; the hash holds nothing of it, and is another one each time."""
    stored = passwords.hash(PASSWORD)
    assert passwords.matches(stored, PASSWORD)
    for wrong in ("", PASSWORD.upper(), f"{PASSWORD} "):
        assert not passwords.matches(stored, wrong)
    assert PASSWORD not in stored
    assert stored != passwords.hash(PASSWORD)


def test_nobodys_password_is_wrong(passwords: Passwords) -> None:
    """Whatever it is, also the one whose hash stands in for those who have none."""
    for password in (PASSWORD, "nobody's password", ""):
        assert not passwords.matches(None, password)


def test_a_hash_that_is_none_matches_nothing(passwords: Passwords) -> None:
    """A row that somebody has damaged lets nobody in."""
    for damaged in ("x", "$argon2id$v=19$m=64,t=1,p=1$", "$2b$12$abcdefghijklmnopqrstuv"):
        assert not passwords.matches(damaged, PASSWORD)


def test_the_same_characters_are_the_same_password(passwords: Passwords) -> None:
    """A keyboard that composes a letter and one that does not make the same password."""
    assert passwords.matches(passwords.hash("pa\u0308sswort"), "p\u00e4sswort")


def test_hashes_follow_the_parameters(passwords: Passwords) -> None:
    """What was made with others is outdated; the API's own are OWASP's minimum or more."""
    stored = passwords.hash(PASSWORD)
    assert not passwords.is_outdated(stored)
    assert Passwords().is_outdated(stored)
    used = extract_parameters(Passwords().hash(PASSWORD))
    assert (used.type.name, used.time_cost, used.memory_cost) == ("ID", TIME_COST, MEMORY_KIB)
    assert TIME_COST >= 2
    assert MEMORY_KIB >= 19 * 1024


def test_who_finds_no_turn_is_told_to_come_back() -> None:
    """However many come at once, memory for only a few is taken; a turn that is free again is used."""
    passwords = Passwords(time_cost=1, memory_kib=LITTLE_KIB, patience_s=0.01)
    with all_turns_taken(passwords):
        with pytest.raises(TooBusy):
            passwords.hash(PASSWORD)
        with pytest.raises(TooBusy):
            passwords.matches(None, PASSWORD)
    patient = Passwords(time_cost=1, memory_kib=LITTLE_KIB, patience_s=LONGEST_S)
    hashed: list[str] = []
    with all_turns_taken(patient):
        waiting = threading.Thread(target=lambda: hashed.append(patient.hash(PASSWORD)))
        waiting.start()
    waiting.join(LONGEST_S)
    assert patient.matches(hashed[0], PASSWORD)
