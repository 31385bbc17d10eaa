"""Serves models over the Open Inference Protocol v2 with dynamic batching across streams."""
