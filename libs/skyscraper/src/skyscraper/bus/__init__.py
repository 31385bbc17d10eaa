"""The Kafka bus: topics, headers, exactly-once transactions, compacted tables."""
