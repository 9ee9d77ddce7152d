"""The messages and the gRPC stubs of Model Registry: `modelregistry.v1`. `make generate` writes this package."""

import warnings

# The oldest supported tools write the stubs. protobuf 6.30 and 6.31 warn of code of the major version before their own,
# although they run it; later versions run it without a warning.
warnings.filterwarnings(
    "ignore", r"Protobuf gencode version \S+ is exactly one major version older .* at modelregistry/", UserWarning
)
