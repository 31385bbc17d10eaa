"""Writes rows from Kafka to Iceberg tables, exactly once."""
