"""The only door to the burst pool: dollars, links, retries around spot interruption, the scaling signal."""
