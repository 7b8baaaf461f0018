"""The schedule of `make chaos`: repeatable, and complete before anything comes again."""

from tests.chaos.accounts import by_kind
from tests.chaos.run import Blow
from tests.chaos.schedule import Kind, Strike, draw


def test_a_seed_repeats_its_schedule() -> None:
    """The same seed draws the same kinds, moments and victims; another one others."""
    assert draw("4711", 40) == draw("4711", 40)
    assert draw("4711", 40) != draw("4712", 40)
    assert draw("4711", 40)[:30] == draw("4711", 30)


def test_every_kind_comes_before_any_comes_again() -> None:
    """Each round is a shuffle of all kinds."""
    kinds = [strike.kind for strike in draw("1", 3 * len(Kind))]
    rounds = [kinds[start : start + len(Kind)] for start in range(0, len(kinds), len(Kind))]
    assert [set(each) for each in rounds] == [set(Kind)] * 3
    assert rounds[0] != rounds[1]


def test_recovery_is_over_when_the_part_is_back_and_the_probe_heard_of() -> None:
    """The later of both counts; what never recovered is counted and has no time."""

    def blow(back_s: float | None, probe_s: float | None) -> Blow:
        return Blow(Strike(Kind.RELAY, 1.0, 0.5), "killed", "order", 0.0, 0.0, back_s, probe_s)

    blows = [blow(1.0, 3.0), blow(5.0, 2.0), blow(0.5, 0.25), blow(1.0, None)]
    assert by_kind(blows) == {"relay": {"kills": 4, "recovered": 3, "p50_s": 3.0, "max_s": 5.0}}
