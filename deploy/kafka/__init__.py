"""A real Apache Kafka, one node, in place of the embedded broker: `BROKER=apache`."""
