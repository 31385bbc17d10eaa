"""Turns segments into rows: switch, decode, infer, track, commit exactly once."""
