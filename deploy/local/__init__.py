"""The embedded stack: every server the payment service needs, and the service itself, on loopback."""
