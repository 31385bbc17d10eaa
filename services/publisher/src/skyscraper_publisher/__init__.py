"""Cuts camera streams into segments and publishes them to Kafka, without decoding."""
