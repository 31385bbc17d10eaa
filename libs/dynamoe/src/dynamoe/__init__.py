"""An empty room: the mixture-of-experts library is not built yet."""
