"""The client on grpc.aio. `_sync` is generated from it by `make generate`; only `runtime` is written twice."""
