"""Video in, table rows out, at the best quality a fixed budget buys."""
