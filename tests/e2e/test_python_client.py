"""The Python client through the gateway, in plaintext."""

import asyncio
import uuid
from pathlib import Path

import modelreg
import pytest
from modelreg import ConnectionFailed, Registry

from tests.client.test_gateway import use, use_by_aio
from tests.products import Product


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MODELREG_CACHE", "MODELREG_CONFIG", "MODELREG_STATE"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


def test_every_kind_of_call_passes_the_gateway(product: Product) -> None:
    name = f"client-{uuid.uuid4()}"
    with Registry(product.rest_url) as registry:
        use(registry, name)
    asyncio.run(use_by_aio(modelreg.aio.Registry(product.rest_url), f"{name}-aio"))


def test_a_gateway_without_a_certificate_does_not_speak_tls(product: Product) -> None:
    url = product.rest_url.replace("http:", "https:")
    with Registry(url) as registry, pytest.raises(ConnectionFailed, match="does not speak TLS"):
        registry.server_info()
