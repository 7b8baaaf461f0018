"""A stateful stand-in for Stripe's API that the real stripe SDK talks to, with faults on demand.

What a test, the demo or the benchmark does to it goes to JSON endpoints of its own under `/_control`:

- `GET health`; `GET, PUT latency {p50_ms, p99_ms}`; `GET ledger?kind=charge|refund&limit=&starting_after=`.
- `GET, POST, DELETE faults`: `{kind, times, match, path, reads}`, as faults.Fault describes them.
- `GET, PUT webhooks`: the endpoint and its troubles, as endpoint.Endpoint describes them; `{"url": null}` for
  none. `GET webhooks/deliveries?state=&limit=&starting_after=`; `POST webhooks/resend {event}`.
- `GET, POST clock {advance_s}` or `{now}`: holds expire, keys are forgotten and refunds settle by it.
- What customers do: `POST authenticate {payment_intent or setup_intent, succeed}` and
  `POST confirm {payment_intent, payment_method, return_url}`, which is Stripe.js with the client secret.
- What banks do: `POST refund {refund, status, failure_reason}`,
  `POST dispute {payment_intent or charge, reason, amount}`, `POST dispute/update {dispute, status}`,
  `POST dispute/close {dispute, status}`.
- What people do at Stripe's dashboard: `POST dashboard/refund {payment_intent, amount}`,
  `POST dashboard/capture {payment_intent, amount}`, `POST dashboard/cancel {payment_intent}`.
"""
