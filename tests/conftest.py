import gc
import os
import sys
from collections.abc import Generator
from functools import cache

import pytest
from httpx._transports import default as httpx_transports
from hypothesis import HealthCheck, settings

# A busy machine, and a fixture that all inputs of a test share, are no failures.
settings.register_profile(
    "tests", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("tests")

# Each of the processes that tests start would compile its modules again: a third of the CPU time of its start. Each of
# pytest's workers would rewrite the assertions of all tests again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Each `httpx.get` and each client would load all public CAs again: 30 ms of CPU time.
httpx_transports.create_ssl_context = cache(httpx_transports.create_ssl_context)  # type: ignore[attr-defined]

# In the order of their imports, so that pytest can rewrite the assertions of each.
pytest_plugins = [
    "tests.parallel",
    "tests.tools",
    "tests.tls_contexts",
    "tests.s3_server",
    "tests.fake_geti",
    "tests.postgres_server",
    "tests.registry",
    "tests.products",
    "tests.intel_deployment",
    "tests.identity_provider",
]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the thousands of collected tests, which live to the end, out of the garbage collector."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
