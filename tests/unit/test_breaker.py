"""When the breaker stops calls, and how it finds out that they may go on."""

import pytest

from payment_worker.breaker import (
    FAILURES_IN_A_ROW,
    FEWEST_CALLS,
    FIRST_PAUSE_S,
    LAST_PAUSE_S,
    LATEST_S,
    PROBE_S,
    SPREAD,
    Breaker,
    Sign,
    State,
)
from payment_worker.gate import sign_of
from shared.gateways import Failed, Misconfigured, Outcome, Succeeded, Waiting
from shared.gateways.stripe_errors import classify
from shared.money import Money
from tests.clock import Clock

WELL, ILL, NONE = Sign.WELL, Sign.ILL, Sign.NONE
TICK_S = 0.001  # more than rounding
LONGEST_FIRST_PAUSE_S = FIRST_PAUSE_S * (1 + SPREAD)


class Bench:
    """A breaker whose clock stands, and the states that it went through."""

    def __init__(self) -> None:
        """Start closed."""
        self.clock = Clock()
        self.states: list[State] = []
        self.breaker = Breaker(clock=self.clock, on_change=self.states.append)

    def call(self, *signs: Sign) -> list[bool]:
        """Make calls that go like this; tell which were let through."""
        return [self._call(sign) for sign in signs]

    def _call(self, sign: Sign) -> bool:
        ticket = self.breaker.enter()
        if ticket is not None:
            self.breaker.leave(ticket, sign)
        return ticket is not None

    def open(self) -> None:
        """Let it open."""
        self.call(*[ILL] * FAILURES_IN_A_ROW)
        assert self.breaker.state is State.OPEN

    def half_open(self) -> None:
        """Let it open, and the first pause pass."""
        self.open()
        self.clock.move(LONGEST_FIRST_PAUSE_S)


@pytest.fixture
def bench() -> Bench:
    """A closed breaker."""
    return Bench()


def test_failures_in_a_row_open_it(bench: Bench) -> None:
    """The last of them, not the one before; from then on nothing is let through."""
    assert bench.call(*[ILL] * (FAILURES_IN_A_ROW - 1)) == [True] * (FAILURES_IN_A_ROW - 1)
    assert bench.states == []
    assert bench.call(ILL, WELL, WELL) == [True, False, False]
    assert bench.states == [State.OPEN]


def test_a_success_between_them_starts_the_count_anew(bench: Bench) -> None:
    """Failures here and there are no outage."""
    bench.call(*[ILL] * (FAILURES_IN_A_ROW - 1), WELL, *[ILL] * (FAILURES_IN_A_ROW - 1))
    assert bench.states == []


def test_what_tells_nothing_does_not_count(bench: Bench) -> None:
    """It neither adds to the failures nor starts their count anew."""
    bench.call(*[NONE] * 100)
    assert bench.states == []
    bench.call(*[ILL] * (FAILURES_IN_A_ROW - 1), NONE, ILL)
    assert bench.states == [State.OPEN]


def test_half_of_the_latest_calls_failing_opens_it(bench: Bench) -> None:
    """An outage that lets some calls through is one, too, once there are enough calls to tell."""
    bench.call(*[ILL, WELL] * (FEWEST_CALLS // 2 - 1), WELL)
    assert bench.states == []
    bench.call(ILL)
    assert bench.states == [State.OPEN]


def test_less_than_half_failing_is_no_outage(bench: Bench) -> None:
    """One in three may fail for as long as it likes."""
    bench.call(*[ILL, WELL, WELL] * 100)
    assert bench.states == []


def test_old_calls_do_not_count(bench: Bench) -> None:
    """Half of the calls failed, but long ago."""
    bench.call(*[WELL, ILL] * (FEWEST_CALLS // 2 - 1), WELL)
    bench.clock.move(LATEST_S)
    bench.call(ILL)
    assert bench.states == []


def test_one_probe_goes_after_the_pause(bench: Bench) -> None:
    """Not a moment before the shortest pause; then one, and no second one while it is out."""
    bench.open()
    bench.clock.move(FIRST_PAUSE_S * (1 - SPREAD) - TICK_S)
    assert bench.breaker.enter() is None
    bench.clock.move(2 * SPREAD * FIRST_PAUSE_S + 2 * TICK_S)
    assert bench.breaker.enter() is not None
    assert bench.breaker.enter() is None
    assert bench.states == [State.OPEN, State.HALF_OPEN]


def test_a_probe_that_succeeds_closes_it(bench: Bench) -> None:
    """Everything goes through at once, and what was counted before is forgotten."""
    bench.half_open()
    assert bench.call(WELL, *[ILL] * (FAILURES_IN_A_ROW - 1)) == [True] * FAILURES_IN_A_ROW
    assert bench.states == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_each_probe_that_fails_doubles_the_pause(bench: Bench) -> None:
    """Up to a minute; once the gateway has answered, the next outage begins with a short pause again."""
    bench.open()
    pauses_s = [bench.breaker.retry_after_s()]
    for _ in range(6):
        bench.clock.move(bench.breaker.retry_after_s() + TICK_S)
        assert bench.call(ILL) == [True]
        pauses_s.append(bench.breaker.retry_after_s())
    expected_s = [FIRST_PAUSE_S * 2**n for n in range(4)] + [LAST_PAUSE_S] * 3
    for pause_s, about_s in zip(pauses_s, expected_s, strict=True):
        assert about_s * (1 - SPREAD) <= pause_s <= about_s * (1 + SPREAD)
    bench.clock.move(bench.breaker.retry_after_s() + TICK_S)
    bench.call(WELL)
    bench.open()
    assert bench.breaker.retry_after_s() <= LONGEST_FIRST_PAUSE_S


def test_a_probe_that_tells_nothing_makes_way_for_the_next(bench: Bench) -> None:
    """After an outage there are many replayed errors; they hold nobody up and decide nothing."""
    bench.half_open()
    assert bench.call(NONE, NONE, NONE, WELL) == [True] * 4
    assert bench.states == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_a_probe_that_is_lost_does_not_keep_it_shut(bench: Bench) -> None:
    """A probe longer out than any call can last makes way for another."""
    bench.half_open()
    assert bench.breaker.enter() is not None
    bench.clock.move(PROBE_S - TICK_S)
    assert bench.breaker.enter() is None
    bench.clock.move(2 * TICK_S)
    assert bench.call(WELL) == [True]
    assert bench.states[-1] is State.CLOSED


def test_calls_begun_before_a_change_say_nothing(bench: Bench) -> None:
    """A call that was under way when it opened neither closes it nor opens it anew."""
    before = [bench.breaker.enter() for _ in range(2 * FAILURES_IN_A_ROW)]
    bench.half_open()
    probe = bench.breaker.enter()
    for ticket, sign in zip(before, [WELL, ILL] * FAILURES_IN_A_ROW, strict=True):
        assert ticket is not None
        bench.breaker.leave(ticket, sign)
    assert bench.states == [State.OPEN, State.HALF_OPEN]
    assert probe is not None
    bench.breaker.leave(probe, WELL)
    assert bench.states == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_it_says_when_to_ask_again(bench: Bench) -> None:
    """Closed, at once; half-open, after a time in which a probe mostly tells."""
    assert bench.breaker.retry_after_s() == 0
    bench.half_open()
    assert bench.breaker.enter() is not None
    assert bench.breaker.retry_after_s() == FIRST_PAUSE_S


@pytest.mark.parametrize(
    ("outcome", "sign"),
    [
        (Succeeded(gateway_ref="pi", transaction_id="ch", captured=Money(1, "USD")), WELL),
        (Failed(error_code="CARD_DECLINED", message="no", reason="card_declined"), WELL),
        (Waiting(gateway_ref="pi", next_action=None), WELL),
        (Misconfigured(reason="401"), WELL),
        (classify(400, {"type": "invalid_request_error"}, replayed=False, sent=True), WELL),
        (classify(429, {"type": "invalid_request_error"}, replayed=False, sent=True), ILL),
        (classify(500, {"type": "api_error"}, replayed=False, sent=True), ILL),
        (classify(503, {}, replayed=False, sent=True), ILL),
        (classify(None, {}, replayed=False, sent=True), ILL),
        (classify(None, {}, replayed=False, sent=False), ILL),
        (classify(500, {"type": "api_error"}, replayed=True, sent=True), NONE),
    ],
    ids=repr,
)
def test_what_an_outcome_says_of_the_gateway(outcome: Outcome, sign: Sign) -> None:
    """No answer, a 5xx and a 429 are the gateway's trouble; no other answer is; a replay tells nothing."""
    assert sign_of(outcome) is sign
