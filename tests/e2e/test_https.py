"""ENABLE_HTTPS_MODE: TLS on both ports, with certificates made here."""

import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from modelregistry.v1 import model_service_pb2, model_service_pb2_grpc

from tests.client import pieces, registration, spec
from tests.folders import passable_folder
from tests.products import COMMAND, Command, environment
from tests.s3_server import Certificates, free_port, make_certificates
from tests.waiting import eventually

PORTS = pytest.mark.parametrize("port", ["rest_port", "grpc_port"])


@dataclass
class SecureProduct:
    rest_port: int
    grpc_port: int
    certificates: Certificates
    env: dict[str, str]

    @property
    def rest_url(self) -> str:
        return f"https://127.0.0.1:{self.rest_port}"

    def http(self, *, http2: bool = False) -> httpx.Client:
        context = ssl.create_default_context(cafile=self.certificates.ca)
        return httpx.Client(base_url=self.rest_url, verify=context, http2=http2)

    def channel(self) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self.certificates.ca.read_bytes())
        return grpc.secure_channel(f"127.0.0.1:{self.grpc_port}", credentials)

    def handshake(self, port: str, version: ssl.TLSVersion, ciphers: str | None = None) -> str | None:
        """Shakes hands in one version of TLS, and returns which it was."""
        context = ssl.create_default_context(cafile=self.certificates.ca)
        context.minimum_version = version
        context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        if ciphers is not None:
            context.set_ciphers(ciphers)
        with (
            socket.create_connection(("127.0.0.1", getattr(self, port)), 10) as connection,
            context.wrap_socket(connection, server_hostname="127.0.0.1") as secure,
        ):
            return secure.version()


@pytest.fixture(scope="module", params=["with the CA", "without a CA"])
def product(request: pytest.FixtureRequest) -> Iterator[SecureProduct]:
    """`up` with TLS; the gateway checks the gRPC server by the CA, or for having the very same certificate."""
    with passable_folder() as folder:
        certificates = make_certificates(folder / "certificates")
        grpc_port, rest_port = free_port(), free_port()
        settings: dict[str, object] = {
            "enable_https_mode": "true",
            "server_cert": certificates.cert,
            "server_private_key": certificates.key,
            "grpc_port": grpc_port,
            "server_port": rest_port,
        }
        if request.param == "with the CA":
            settings["ca_cert"] = certificates.ca
        product = SecureProduct(rest_port, grpc_port, certificates, environment(**settings))
        command = Command(["up", f"--data-dir={folder / 'data'}"], product.env, folder / "up.log")
        command.start()
        try:
            with product.http() as http:
                eventually(lambda: http.get("/ready").status_code == 200, what="readiness")
            yield product
        finally:
            assert command.stop(signal.SIGTERM) == 0, command.output()


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_rest_speaks_tls(product: SecureProduct, http2: bool) -> None:
    with product.http(http2=http2) as http:
        answer = http.get("/v1/models")
        assert answer.status_code == 200
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")


def test_a_model_comes_in_over_grpc_with_tls_and_goes_out_over_https(product: SecureProduct) -> None:
    data = bytes(range(256)) * 4096
    with product.channel() as channel, product.http() as http:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        model = models.RegisterModel(registration(spec(name="secure"), pieces(data))).model
        assert http.get(f"/v1/models/{model.id}/artifact").content == data
        models.DeleteModel(model_service_pb2.DeleteModelRequest(id=model.id))


def test_the_check_command_asks_over_tls(product: SecureProduct) -> None:
    checked = subprocess.run([*COMMAND, "check"], env=product.env, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout.strip()) == (0, "SERVING"), checked.stderr


def test_a_client_that_does_not_know_the_ca_refuses_the_server(product: SecureProduct) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{product.rest_url}/ready")


@PORTS
def test_what_is_no_tls_gets_no_answer(product: SecureProduct, port: str) -> None:
    with socket.create_connection(("127.0.0.1", getattr(product, port)), 10) as connection:
        connection.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            answer = connection.recv(100)
        except ConnectionResetError:
            answer = b""
        assert not answer.startswith(b"HTTP/")


@PORTS
@pytest.mark.parametrize(
    ("version", "name"),
    [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")],
    ids=["TLS 1.2", "TLS 1.3"],
)
def test_modern_tls_is_spoken(product: SecureProduct, port: str, version: ssl.TLSVersion, name: str) -> None:
    assert product.handshake(port, version) == name


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@PORTS
def test_old_tls_is_refused(product: SecureProduct, port: str) -> None:
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        product.handshake(port, ssl.TLSVersion.TLSv1_1, ciphers="ALL:@SECLEVEL=0")


@PORTS
def test_the_documented_ciphers_are_offered_and_no_others(product: SecureProduct, port: str) -> None:
    product.handshake(port, ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        product.handshake(port, ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    env = environment(enable_https_mode="true", server_cert=tmp_path / "none.pem", server_private_key=tmp_path / "none")
    ended = subprocess.run([*COMMAND, "up"], env=env, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "SERVER_CERT" in ended.stderr
    assert "Traceback" not in ended.stderr
