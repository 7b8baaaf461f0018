"""Signatures of webhooks, against the Standard Webhooks specification."""

import base64

from shared.notifications import new_secret, signed_headers

# The specification's own libraries test with this message.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, AT_S, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_specifications_example_comes_out() -> None:
    """The known message has the known signature."""
    assert signed_headers(ID, AT_S, BODY, [SECRET]) == {
        "webhook-id": ID, "webhook-timestamp": str(AT_S), "webhook-signature": SIGNATURE,
    }  # fmt: skip


def test_each_secret_signs() -> None:
    """While a secret is replaced there is a signature for each, by spaces, the newest first."""
    other = new_secret()
    signatures = signed_headers(ID, AT_S, BODY, [other, SECRET])["webhook-signature"].split(" ")
    assert len(signatures) == 2
    assert signatures[1] == SIGNATURE
    assert signatures[0] == signed_headers(ID, AT_S, BODY, [other])["webhook-signature"] != SIGNATURE


def test_a_secret_is_random_and_long() -> None:
    """Between 24 and 64 bytes, as the specification asks, and never the same twice."""
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(base64.b64decode(each.removeprefix("whsec_"))) for each in made} == {32}
