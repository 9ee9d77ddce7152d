"""The gRPC server. Nothing may import grpc before this package: it reads its environment once, when it is loaded."""

import os

from registry_service.settings import CIPHER_SUITES

os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", ":".join(CIPHER_SUITES))
