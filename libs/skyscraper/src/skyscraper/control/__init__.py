"""Decisions as functions of plain data: no I/O, no clock, no globals."""
