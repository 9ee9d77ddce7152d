"""One TLS context for all of httpx's clients that trust the usual CAs.

`httpx.get` reads the certificates of all CAs anew with each call, for an address without TLS too: 25 ms of CPU, most of
what such a call of a test costs.
"""

import functools
import ssl
from typing import Any

import httpx
import pytest
from httpx._transports import default


@functools.cache
def _usual_context(trust_env: bool) -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=trust_env)


def _shared_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    if verify is True and cert is None:
        return _usual_context(trust_env)
    return httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)


def pytest_configure() -> None:
    pytest.MonkeyPatch().setattr(default, "create_ssl_context", _shared_context)
