"""How long the Stripe simulator lets calls take: log-normal, by a median and a 99th percentile."""

from collections.abc import Iterator
from statistics import quantiles

import pytest

from deploy.stripe_simulator.conversation import Call, Conversation, answer_get, answer_post
from deploy.stripe_simulator.latency import Latency
from deploy.stripe_simulator.operations import CANCEL_INTENT, CREATE_INTENT
from deploy.stripe_simulator.queries import INTENTS_URL, list_intents
from deploy.stripe_simulator.simulator import Simulator

USUAL = Latency(120, 380)
DRAWS = 10_000
HEADERS = {"Authorization": "Bearer sk_test_x"}
FORM = "application/x-www-form-urlencoded"
CHARGE = b"amount=2500&currency=usd&confirm=true&payment_method=pm_card_visa&payment_method_types[]=card"


def test_durations_are_log_normal() -> None:
    """Half of the calls are quicker than p50, one in a hundred slower than p99; logarithms are symmetric."""
    percentiles = [0.0, *quantiles((USUAL.draw_s(str(seed)) for seed in range(DRAWS)), n=100)]
    assert percentiles[50] == pytest.approx(0.120, rel=0.03)
    assert percentiles[99] == pytest.approx(0.380, rel=0.06)
    # In logarithms, what is as far below the median as p99 is above it is p1; so for the quartiles, whose
    # distance from the median is 0.6745 / 2.3263 of that in a normal distribution.
    assert percentiles[1] == pytest.approx(0.120**2 / 0.380, rel=0.06)
    spread = (0.380 / 0.120) ** (0.6745 / 2.3263)
    assert percentiles[75] == pytest.approx(0.120 * spread, rel=0.03)
    assert percentiles[25] == pytest.approx(0.120 / spread, rel=0.03)


def test_a_seed_gives_one_duration() -> None:
    """The same key takes as long again, another one does not; without a key it is chance."""
    assert USUAL.draw_s("key") == USUAL.draw_s("key") != USUAL.draw_s("other")
    assert len({USUAL.draw_s(None) for _ in range(10)}) > 1


def test_without_a_tail_all_calls_take_the_median() -> None:
    """With p99 at p50 nothing is left to chance."""
    assert [Latency(250, 250).draw_s(str(seed)) for seed in range(10)] == [pytest.approx(0.25)] * 10


@pytest.mark.parametrize(
    ("p50_ms", "p99_ms"), [(0, 1), (-1, 1), (2, 1), (1, float("inf")), (float("nan"), 1)]
)
def test_percentiles_that_no_distribution_has_are_refused(p50_ms: float, p99_ms: float) -> None:
    """The median is above nought and not above the 99th percentile, which is finite."""
    with pytest.raises(ValueError, match="0 < p50_ms <= p99_ms"):
        Latency(p50_ms, p99_ms)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A simulator in memory, with the usual durations."""
    simulator = Simulator(None)
    simulator.set_latency(USUAL)
    yield simulator
    simulator.close()


def waits_s(conversation: Conversation) -> float:
    """How long a call is held up in all, by its pauses."""
    return sum(conversation)


def charge(simulator: Simulator, key: str) -> Conversation:
    """One charge under a key."""
    headers = HEADERS | {"Idempotency-Key": key}
    call = Call(path=INTENTS_URL, target="", headers=headers, body=CHARGE, content_type=FORM)
    return answer_post(simulator, call, CREATE_INTENT)


def test_a_charge_is_held_up_for_the_duration_of_its_key(simulator: Simulator) -> None:
    """So a benchmark can tell afterwards how long each took; and what asks no card network takes a tenth."""
    for key in map(str, range(20)):
        assert waits_s(charge(simulator, key)) == pytest.approx(USUAL.draw_s(key))
    simulator.set_latency(Latency(250, 250))
    seen = Call(path=INTENTS_URL, target="", headers=HEADERS)
    assert waits_s(answer_get(simulator, seen, list_intents)) == pytest.approx(0.025)
    cancel = Call(path=f"{INTENTS_URL}/pi_1/cancel", target="pi_1", headers=HEADERS, content_type=FORM)
    assert waits_s(answer_post(simulator, cancel, CANCEL_INTENT)) == pytest.approx(0.025)


def test_a_replay_takes_a_tenth(simulator: Simulator) -> None:
    """A key that is known is answered from memory."""
    simulator.set_latency(Latency(250, 250))
    assert waits_s(charge(simulator, "key")) == pytest.approx(0.25)
    assert waits_s(charge(simulator, "key")) == pytest.approx(0.025)


def test_without_latency_nothing_is_held_up(simulator: Simulator) -> None:
    """Null makes calls instant again."""
    simulator.set_latency(None)
    assert waits_s(charge(simulator, "key")) == 0
