"""Trace-driven simulation of controllers: the same decisions as the services take, over recorded truth."""
