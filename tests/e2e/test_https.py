"""ENABLE_HTTPS_MODE: TLS on both ports, client certificates, and renewal of certificates."""

import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import httpx
import pytest
from modelregistry.v1 import model_service_pb2, model_service_pb2_grpc

from registry_service.certificates import Certificate, CertificateError
from registry_service.transport.grpc.credentials import server_credentials
from tests.polling import eventually
from tests.ports import free_port
from tests.products import COMMAND, READY_SECONDS, Command, environment
from tests.s3_server import Authority, Certificates, make_certificates
from tests.stub_client import pieces, refused, registration, spec
from tests.temporary_folders import accessible_folder

PORTS = pytest.mark.parametrize("port", ["rest_port", "grpc_port"])


@dataclass
class SecureProduct:
    rest_port: int
    grpc_port: int
    certificates: Certificates
    env: dict[str, str]
    client: Certificates | None = None
    """What its clients show."""

    @property
    def rest_url(self) -> str:
        return f"https://127.0.0.1:{self.rest_port}"

    def http(self, *, http2: bool = False) -> httpx.Client:
        context = ssl.create_default_context(cafile=self.certificates.ca)
        if self.client is not None:
            context.load_cert_chain(self.client.cert, self.client.key)
        return httpx.Client(base_url=self.rest_url, verify=context, http2=http2)

    def channel(self) -> grpc.Channel:
        own = self.client
        credentials = grpc.ssl_channel_credentials(
            self.certificates.ca.read_bytes(),
            private_key=None if own is None else own.key.read_bytes(),
            certificate_chain=None if own is None else own.cert.read_bytes(),
        )
        # Otherwise the channels of one process share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(f"127.0.0.1:{self.grpc_port}", credentials, options=options)

    def lists(self) -> bool:
        """Return whether a client's calls succeed over gRPC and over REST."""
        with self.channel() as channel, self.http() as http:
            request = model_service_pb2.ListModelsRequest()
            model_service_pb2_grpc.ModelServiceStub(channel).ListModels(request, timeout=10)
            return http.get("/v1/models").status_code == 200

    def shown(self, port: str) -> bytes:
        """Return the certificate (DER) that a new connection gets."""
        context = ssl.create_default_context(cafile=self.certificates.ca)
        context.set_alpn_protocols(["h2"])
        if self.client is not None:
            context.load_cert_chain(self.client.cert, self.client.key)
        with (
            socket.create_connection(("127.0.0.1", getattr(self, port)), 10) as connection,
            context.wrap_socket(connection, server_hostname="127.0.0.1") as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""

    def handshake(self, port: str, version: ssl.TLSVersion, ciphers: str | None = None) -> str | None:
        """Perform a handshake with one version of TLS, and return the negotiated version."""
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


@contextmanager
def running(folder: Path, certificates: Certificates, **settings: object) -> Iterator[SecureProduct]:
    """Run `up` with TLS and these settings."""
    grpc_port, rest_port = free_port(), free_port()
    settings |= {
        "enable_https_mode": "true",
        "server_cert": certificates.cert,
        "server_private_key": certificates.key,
        "grpc_port": grpc_port,
        "server_port": rest_port,
    }
    client = None
    if "client_cert" in settings:
        client = Certificates(
            cert=Path(str(settings["client_cert"])),
            key=Path(str(settings["client_private_key"])),
            ca=Path(str(settings["client_ca_cert"])),
        )
    product = SecureProduct(rest_port, grpc_port, certificates, environment(**settings), client)
    command = Command(["up", f"--data-dir={folder / 'data'}"], product.env, folder / "up.log")
    command.start()
    try:
        with product.http() as http:
            eventually(lambda: http.get("/ready").status_code == 200, READY_SECONDS, "readiness")
        yield product
    finally:
        assert command.stop(signal.SIGTERM) == 0, command.output()


@pytest.fixture(scope="module", params=["with the CA", "without a CA"])
def product(request: pytest.FixtureRequest) -> Iterator[SecureProduct]:
    """`up` with TLS; the gateway verifies the gRPC server by a CA, or by its pinned certificate."""
    with accessible_folder() as folder:
        certificates = make_certificates(folder / "certificates")
        settings = {"ca_cert": certificates.ca} if request.param == "with the CA" else {}
        with running(folder, certificates, **settings) as product:
            yield product


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_rest_is_served_over_tls(product: SecureProduct, http2: bool) -> None:
    with product.http(http2=http2) as http:
        answer = http.get("/v1/models")
        assert answer.status_code == 200
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        # HSTS: a browser that has been here uses only HTTPS from then on.
        assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_a_model_registered_over_grpc_with_tls_is_downloaded_over_https(product: SecureProduct) -> None:
    data = bytes(range(256)) * 4096
    with product.channel() as channel, product.http() as http:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        model = models.RegisterModel(registration(spec(name="secure"), pieces(data))).model
        assert http.get(f"/v1/models/{model.id}/artifact").content == data
        models.DeleteModel(model_service_pb2.DeleteModelRequest(model_id=model.id))


def check(product: SecureProduct, *arguments: str, **settings: object) -> tuple[int, str]:
    env = product.env | environment(**settings)
    answer = subprocess.run([*COMMAND, "check", *arguments], env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in answer.stderr
    return answer.returncode, (answer.stdout or answer.stderr).strip()


def test_the_check_command_uses_tls(product: SecureProduct) -> None:
    assert check(product) == check(product, "--rest") == (0, "SERVING")


def test_a_client_without_the_ca_refuses_the_server(product: SecureProduct) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{product.rest_url}/ready")


@PORTS
def test_a_plaintext_request_gets_no_answer(product: SecureProduct, port: str) -> None:
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
def test_modern_tls_versions_are_accepted(
    product: SecureProduct, port: str, version: ssl.TLSVersion, name: str
) -> None:
    assert product.handshake(port, version) == name


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@PORTS
def test_old_tls_versions_are_refused(product: SecureProduct, port: str) -> None:
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        product.handshake(port, ssl.TLSVersion.TLSv1_1, ciphers="ALL:@SECLEVEL=0")


@PORTS
def test_exactly_the_documented_ciphers_are_offered(product: SecureProduct, port: str) -> None:
    product.handshake(port, ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        product.handshake(port, ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")


# ---- client certificates ----


@pytest.fixture(scope="module")
def exclusive() -> Iterator[SecureProduct]:
    """`up` that requires client certificates of a CA other than its own."""
    with accessible_folder() as folder:
        certificates, clients = make_certificates(folder / "certificates"), Authority(folder / "clients")
        client = clients.issue("client")
        with running(
            folder,
            certificates,
            ca_cert=certificates.ca,
            client_ca_cert=clients.ca,
            client_cert=client.cert,
            client_private_key=client.key,
        ) as product:
            yield product


def test_a_client_with_a_certificate_is_served(exclusive: SecureProduct) -> None:
    assert exclusive.lists()
    for arguments in ((), ("--live",), ("--rest",), ("--rest", "--live")):
        assert check(exclusive, *arguments) == (0, "SERVING")


@pytest.mark.parametrize("client", ["none", "another CA's"])
def test_a_client_without_a_valid_certificate_is_refused_on_both_ports(
    exclusive: SecureProduct, client: str, tmp_path: Path
) -> None:
    refused_client = replace(exclusive, client=None if client == "none" else make_certificates(tmp_path / "others"))
    with refused_client.channel() as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        with refused(grpc.StatusCode.UNAVAILABLE):
            models.ListModels(model_service_pb2.ListModelsRequest(), timeout=10)
    with refused_client.http() as http, pytest.raises(httpx.TransportError):
        http.get("/health")
    own = {} if refused_client.client is None else {"client_cert": refused_client.client.cert}
    if refused_client.client is not None:
        own["client_private_key"] = refused_client.client.key
        assert check(exclusive, **own) == check(exclusive, "--rest", **own) == (1, "UNREACHABLE")


def test_a_check_without_a_client_certificate_names_the_cause(exclusive: SecureProduct) -> None:
    code, said = check(exclusive, client_cert="", client_private_key="")
    assert code == 1
    assert "CLIENT_CERT: must be set with CLIENT_CA_CERT" in said


# ---- renewal ----


def test_renewed_certificates_are_served_without_a_restart() -> None:
    with accessible_folder() as folder:
        servers, clients = Authority(folder / "servers"), Authority(folder / "clients")
        server, client = servers.issue("server"), clients.issue("client")
        with running(
            folder,
            server,
            ca_cert=servers.ca,
            client_ca_cert=clients.ca,
            client_cert=client.cert,
            client_private_key=client.key,
        ) as product:
            before = product.shown("grpc_port")
            assert before == product.shown("rest_port")
            with product.channel() as channel, product.http() as http:
                # Open connections stay.
                models = model_service_pb2_grpc.ModelServiceStub(channel)
                models.ListModels(model_service_pb2.ListModelsRequest())
                http.get("/health")
                servers.issue("server")
                clients.issue("client")
                renewed = ssl.PEM_cert_to_DER_cert(server.cert.read_text())
                eventually(lambda: product.shown("grpc_port") == renewed, what="the server's renewed certificate")
                eventually(lambda: product.shown("rest_port") == renewed, what="the gateway's renewed certificate")
                models.ListModels(model_service_pb2.ListModelsRequest())
                assert http.get("/health").status_code == 200
            assert product.lists()
            # A key and a certificate that do not match are not loaded.
            server.key.write_bytes(client.key.read_bytes())
            assert product.shown("grpc_port") == product.shown("rest_port") == renewed
            assert product.lists()
            assert "the private key does not match the certificate" in (folder / "data" / "registry.log").read_text()


# ---- settings ----


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"server_cert": "/nowhere/server.crt"}, "SERVER_CERT: there is no file /nowhere/server.crt"),
        ({"server_private_key": ""}, "SERVER_PRIVATE_KEY: must be set with ENABLE_HTTPS_MODE=true"),
        ({"client_ca_cert": __file__}, "CLIENT_CERT: must be set with CLIENT_CA_CERT"),
        ({"client_cert": __file__}, "CLIENT_PRIVATE_KEY: must be set with ENABLE_HTTPS_MODE=true"),
        ({"enable_https_mode": "false", "client_ca_cert": __file__}, "CLIENT_CA_CERT: requires ENABLE_HTTPS_MODE=true"),
        ({"server_private_key": __file__}, f"{__file__}: not a usable PEM certificate or key"),
    ],
)
def test_an_invalid_setting_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    server = make_certificates(tmp_path / "certificates")
    settings = {"enable_https_mode": "true", "server_cert": server.cert, "server_private_key": server.key} | changes
    env = environment(**settings, server_port=free_port())
    ended = subprocess.run([*COMMAND, "gateway"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_key_of_another_certificate_is_reported_at_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    with pytest.raises(CertificateError, match="the private key does not match the certificate"):
        server_credentials(Certificate(authority.issue("one").cert, authority.issue("two").key), None)


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    env = environment(enable_https_mode="true", server_cert=tmp_path / "none.pem", server_private_key=tmp_path / "none")
    ended = subprocess.run([*COMMAND, "up"], env=env, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "SERVER_CERT" in ended.stderr
    assert "Traceback" not in ended.stderr
