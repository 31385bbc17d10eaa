"""What simulated burst machines cost."""

# A c2-standard-60 costs 2.51 USD an hour; spot machines a third of it; the cloud's core-second is 1.8 times the pool's.
BURST_USD_PER_CORE_SECOND = 2.51 / 60 / 3600 / 3 * 1.8
ROUND_TRIP_SECONDS = 0.5
