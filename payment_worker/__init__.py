"""Drives charges against the gateway and announces their outcomes."""
