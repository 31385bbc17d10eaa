"""gRPC clients."""
