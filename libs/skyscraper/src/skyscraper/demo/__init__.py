"""A whole installation on this machine, for the demo, tests and benchmarks: real broker, every service a process."""
