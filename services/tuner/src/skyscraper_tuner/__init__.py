"""An empty room: the tuner plans the knobs of all streams jointly; it is not built yet."""
