"""The client on grpc, generated from `_async` by `make generate`. Only `runtime` is written by hand."""
