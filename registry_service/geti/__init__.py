"""The optional connection to an Intel Geti server: list its projects and import models from them.

- `port`: the port `Geti` and its types.
- `client`, `responses`: the adapter of the port on Geti's REST API.
- `authorized`: the port restricted to the projects that a caller may access.
- `projects`, `imports`: the service.
- `servicer`, `messages`: the gRPC service `GetiService`.

`compat` has the projects of the Intel-compatible API.
"""
