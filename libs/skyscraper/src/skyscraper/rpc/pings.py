"""What a gRPC server allows its clients so that they notice a machine that is gone."""

from __future__ import annotations

# Clients ping so often, also while nothing is asked; by default a server takes that for abuse and closes the
# connection.
ALLOW_PINGS = (
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 2_000),
)
