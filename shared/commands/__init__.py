"""What can be asked of a payment; one transaction each. Routes, Kafka commands and repairs all call these."""
