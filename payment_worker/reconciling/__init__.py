"""Compare the books of the gateway with ours, row by row, and repair what can be repaired safely."""
