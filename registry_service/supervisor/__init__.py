"""Process management of `up`, `serve` and `gateway`.

- `children`: restart child processes that exit or hang.
- `server`: run the gRPC server in this process, in a child process, or in several workers.
- `gateway`: run Envoy.
- `all_in_one`: run Postgres, the gRPC server and Envoy on one machine.
- `runtime`: signals, the limit of open files, and malloc of this process.
"""
