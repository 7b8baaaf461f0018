"""The contracts as they were last agreed on, and what of them a change would break."""
