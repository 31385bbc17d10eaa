"""An empty room: the burst gateway spends the cloud budget; it is not built yet."""
