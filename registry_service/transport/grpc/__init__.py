"""The gRPC server. Import this package before grpc, which reads its environment only once, when it is loaded."""

import os

from registry_service.settings import CIPHER_SUITES

os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", ":".join(CIPHER_SUITES))
