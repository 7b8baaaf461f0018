"""An example of a client: an ordering domain that asks by HTTP (payments) and hears on Kafka (outcomes)."""
