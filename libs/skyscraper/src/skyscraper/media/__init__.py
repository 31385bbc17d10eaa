"""Video in and out: decoding what the knobs ask for, cutting streams into segments, the simulated street camera."""
