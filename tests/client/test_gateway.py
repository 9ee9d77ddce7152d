"""Every kind of call with TLS, client certificates and tokens, through the gateway and without.

tests/e2e/test_python_client.py makes them in plaintext.
"""

import asyncio
import io
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modelreg
import pytest
from click.testing import CliRunner
from modelreg import ConnectionFailed, NotFound, Registry, Unauthenticated
from modelreg.cli import main
from modelreg.profiles import Profiles

from tests.e2e.test_https import SecureProduct, running
from tests.products import COMMAND
from tests.s3_server import Authority, Certificates, make_certificates
from tests.temporary_folders import accessible_folder

CONTENT = bytes(range(256)) * 20_000
"""More than one message, and more than the windows of HTTP/2 hold."""


def use(registry: Registry, name: str) -> None:
    """Make calls of every kind: unary, with streams in either direction, long ones, and lists."""
    first = registry.push(io.BytesIO(CONTENT), name=name, version="1", file_name="model.bin", tags={"n": name})
    again = registry.push(io.BytesIO(CONTENT), name=name, version="1", file_name="model.bin", if_exists="return")
    assert (again.id, again.created) == (first.id, False)
    second = registry.push(io.BytesIO(CONTENT[1:]), name=name, version="2", file_name="model.bin")
    registry.promote(f"{name}@production", first)
    assert registry.pull(f"{name}@production").read_bytes() == CONTENT
    with registry.open(second) as file:
        file.seek(-100, io.SEEK_END)
        assert file.read() == CONTENT[-100:]
    assert {model.id for model in registry.models(f"name = {name}")} == {first.id, second.id}
    assert registry.verify(first).intact
    with closing(registry.watch(f"name = {name}", from_beginning=True)) as events:
        assert next(events).model_id == first.id
    with pytest.raises(NotFound) as caught:
        registry.model(f"{name}:3")
    assert caught.value.reason
    assert caught.value.request_id


async def use_by_aio(registry: modelreg.aio.Registry, name: str) -> None:
    async with registry:
        model = await registry.push(io.BytesIO(CONTENT), name=name, version="1", file_name="model.bin")
        assert (await registry.pull(model)).read_bytes() == CONTENT
        assert [found.id async for found in registry.models(f"name = {name}")] == [model.id]
        async for event in registry.watch(f"name = {name}", from_beginning=True):
            assert event.model_id == model.id
            break


@dataclass
class Guarded:
    """A product, and what its clients need."""

    product: SecureProduct
    client: Certificates
    token: str

    @property
    def rest_url(self) -> str:
        return f"https://localhost:{self.product.rest_port}"

    @property
    def grpc_url(self) -> str:
        return f"grpcs://localhost:{self.product.grpc_port}"

    @property
    def options(self) -> dict[str, Any]:
        return {
            "ca_file": str(self.product.certificates.ca),
            "client_certificate": str(self.client.cert),
            "client_key": str(self.client.key),
        }


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with accessible_folder() as folder:
        certificates, clients = make_certificates(folder / "certificates"), Authority(folder / "clients")
        client = clients.issue("client")
        settings = {
            "ca_cert": certificates.ca,
            "client_ca_cert": clients.ca,
            "client_cert": client.cert,
            "client_private_key": client.key,
            "auth_mode": "token",
        }
        with running(folder, certificates, **settings) as product:
            command = [*COMMAND, "token", "create", "--role", "admin", "--name", "ci", f"--data-dir={folder / 'data'}"]
            made = subprocess.run(command, env=product.env, capture_output=True, text=True, check=True)
            yield Guarded(product, client, made.stdout.split()[-1])


@pytest.mark.parametrize("through", ["the gateway", "the port of gRPC"])
def test_every_kind_of_call_is_made_with_tls_a_client_certificate_and_a_token(
    guarded: Guarded, name: str, through: str
) -> None:
    url = guarded.rest_url if through == "the gateway" else guarded.grpc_url
    with Registry(url, token=guarded.token, **guarded.options) as registry:
        assert registry.whoami().subject == "token:ci"
        use(registry, name)
    with Registry(url, **guarded.options) as registry, pytest.raises(Unauthenticated):
        registry.whoami()
    asyncio.run(use_by_aio(modelreg.aio.Registry(url, token=guarded.token, **guarded.options), f"{name}-aio"))


@pytest.mark.parametrize("shows", ["no certificate", "another CA's"])
def test_the_gateway_refuses_a_client_without_its_certificate(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shows: str
) -> None:
    monkeypatch.setattr("modelreg._sync.runtime.sleep", lambda _: None)
    options = {"ca_file": guarded.options["ca_file"]}
    if shows != "no certificate":
        other = make_certificates(tmp_path / "others")
        options |= {"client_certificate": str(other.cert), "client_key": str(other.key)}
    with (
        Registry(guarded.rest_url, **options) as registry,
        pytest.raises(ConnectionFailed, match=r"Pass client_certificate and client_key|trusts the CA of the client"),
    ):
        registry.server_info()


def test_plaintext_to_a_gateway_with_tls_is_explained(guarded: Guarded) -> None:
    with (
        Registry(f"http://localhost:{guarded.product.rest_port}") as registry,
        pytest.raises(ConnectionFailed, match="It speaks TLS"),
    ):
        registry.server_info()


def test_a_profile_keeps_all_that_is_needed(guarded: Guarded) -> None:
    given = [f"--{name.replace('_', '-')}={value}" for name, value in guarded.options.items()]
    signed_in = CliRunner().invoke(main, ["login", guarded.rest_url, "--token-stdin", *given], input=guarded.token)
    assert signed_in.exit_code == 0, signed_in.stderr
    assert Profiles().get("localhost").url == guarded.rest_url
    assert CliRunner().invoke(main, ["whoami", "--format", "quiet"]).stdout == "token:ci\n"
    with Registry() as registry:
        assert registry.whoami().subject == "token:ci"
