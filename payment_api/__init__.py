"""Validates payment commands, records intents and answers how payments stand."""
