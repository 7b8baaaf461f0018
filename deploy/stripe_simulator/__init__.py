"""A stateful stand-in for Stripe's API that the real stripe SDK talks to, with faults on demand."""
