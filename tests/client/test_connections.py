"""How the client connects: TLS, proxies, silent connections, and what it says of servers that it cannot reach."""

import asyncio
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import modelreg
import pytest
from modelreg import ConnectionFailed, InvalidArgument, Registry, Unavailable
from modelreg._wire.diagnosis import diagnose
from modelreg._wire.options import Options
from modelreg._wire.rpc_errors import Failure, registry_error
from modelreg.urls import parse_url
from modelregistry.v1 import system_service_pb2, system_service_pb2_grpc

from tests.client.connect_proxy import ConnectProxy
from tests.hanging_proxy import HangingProxy
from tests.s3_server import Authority, Certificates


class System(system_service_pb2_grpc.SystemServiceServicer):
    def GetServerInfo(self, request: Any, context: Any) -> system_service_pb2.ServerInfo:  # noqa: N802
        del request, context
        return system_service_pb2.ServerInfo(version="1.2.3")


@dataclass
class Servers:
    """Ports on this machine, and the certificates of their servers."""

    own: Authority
    server: Certificates
    client: Certificates
    other: Certificates
    plain: int
    tls: int
    mutual: int
    http1: int


@contextmanager
def serving(credentials: grpc.ServerCredentials | None = None) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4))
    system_service_pb2_grpc.add_SystemServiceServicer_to_server(System(), server)  # type: ignore[abstract]
    address = "127.0.0.1:0"
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    server.start()
    yield port
    server.stop(None).wait()


@contextmanager
def serving_http1() -> Iterator[int]:
    """Run a server that knows HTTP/1 alone."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("certificates")
    own, others = Authority(folder / "own"), Authority(folder / "others")
    server, client, other = own.issue("server"), own.issue("client"), others.issue("client")
    pair = [(server.key.read_bytes(), server.cert.read_bytes())]
    with (
        serving() as plain,
        serving(grpc.ssl_server_credentials(pair)) as tls,
        serving(grpc.ssl_server_credentials(pair, own.ca.read_bytes(), require_client_auth=True)) as mutual,
        serving_http1() as http1,
    ):
        yield Servers(own, server, client, other, plain, tls, mutual, http1)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "SSL_CERT_FILE":
            monkeypatch.delenv(name)


def version(url: str, **options: Any) -> str:
    """Call a server, and return its version."""
    with Registry(url, **options) as registry:
        return registry.server_info().version


def version_by_aio(url: str, **options: Any) -> str:
    async def call() -> str:
        async with modelreg.aio.Registry(url, **options) as registry:
            return (await registry.server_info()).version

    return asyncio.run(call())


BOTH = pytest.mark.parametrize("call", [version, version_by_aio], ids=["sync", "aio"])


# ---- TLS ----


@BOTH
def test_a_private_ca_is_named_by_an_argument_or_a_variable(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    url = f"grpcs://localhost:{servers.tls}"
    assert call(url, ca_file=str(servers.own.ca)) == "1.2.3"
    monkeypatch.setenv("SSL_CERT_FILE", str(servers.own.ca))
    assert call(url) == "1.2.3"
    monkeypatch.setenv("SSL_CERT_FILE", str(servers.other.ca))
    monkeypatch.setenv("MODELREG_CA_FILE", str(servers.own.ca))
    assert call(url) == "1.2.3"


@BOTH
def test_a_client_certificate_is_presented(servers: Servers, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    url, ca = f"grpcs://localhost:{servers.mutual}", str(servers.own.ca)
    certificate, key = str(servers.client.cert), str(servers.client.key)
    assert call(url, ca_file=ca, client_certificate=certificate, client_key=key) == "1.2.3"
    monkeypatch.setenv("MODELREG_CLIENT_CERTIFICATE", certificate)
    monkeypatch.setenv("MODELREG_CLIENT_KEY", key)
    assert call(url, ca_file=ca) == "1.2.3"


HOPELESS = {
    "no CA": ("grpcs://localhost:{tls}", None, "not trusted. Name the CA with ca_file or MODELREG_CA_FILE"),
    "another CA": ("grpcs://localhost:{tls}", "other", "not trusted. Name the CA with ca_file or MODELREG_CA_FILE"),
    "another host": ("grpcs://registry.localhost:{tls}", "own", "certificate is for another host name"),
    "TLS to plaintext": ("grpcs://localhost:{plain}", "own", "does not speak TLS. Use grpc:// or http://"),
    "plaintext to TLS": ("grpc://localhost:{tls}", None, "It speaks TLS. Use grpcs:// or https://"),
    "a web server": ("grpc://localhost:{http1}", None, "a web server that does not speak gRPC"),
    "an unknown host": ("grpc://nowhere.invalid:1", None, "The name of the host is unknown"),
}


@BOTH
@pytest.mark.parametrize("case", HOPELESS)
def test_what_no_repetition_can_mend_is_said_at_once(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, case: str, call: Any
) -> None:
    url, ca, said = HOPELESS[case]
    url = url.format(tls=servers.tls, plain=servers.plain, http1=servers.http1)
    for api in ("_sync", "_async"):
        monkeypatch.setattr(f"modelreg.{api}.runtime.sleep", lambda _: pytest.fail("tried again"))
    options = {} if ca is None else {"ca_file": str(servers.own.ca if ca == "own" else servers.other.ca)}
    with pytest.raises(ConnectionFailed) as caught:
        call(url, **options)
    assert f"No connection to {url}." in str(caught.value)
    assert said in str(caught.value)


# As grpc says it in other versions, and with the resolver of the system.
MESSAGES = {
    "last error: UNKNOWN: ipv4:127.0.0.1:1: Peer name a.lan is not in peer certificate": "for another host name",
    "Hostname Verification Check failed.": "for another host name",
    "SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired": (
        "has expired"
    ),
    "SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED": "is not trusted",
    "Address lookup failed for a.lan:1 os_error: Name or service not known syscall: getaddrinfo": "host is unknown",
    "DNS resolution failed for a.lan:1: C-ares status is not ARES_SUCCESS: Domain name not found": "host is unknown",
    "Cannot check peer: missing selected ALPN property.": "not HTTP/2",
}
TRANSIENT = [
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused",
    "DNS resolution failed for a.lan:1: C-ares status is not ARES_SUCCESS: Timeout while contacting DNS servers",
    "os_error: Temporary failure in name resolution syscall: getaddrinfo",
    "HTTP proxy returned response code 503",
    "Socket closed",
]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_of_other_versions_of_grpc_are_known(message: str) -> None:
    failure = Failure(grpc.StatusCode.UNAVAILABLE, message)
    assert not failure.is_transient
    assert MESSAGES[message] in str(registry_error(failure, parse_url("grpcs://a.lan")))


@pytest.mark.parametrize("message", TRANSIENT)
def test_what_may_pass_is_tried_again(message: str) -> None:
    assert Failure(grpc.StatusCode.UNAVAILABLE, message).is_transient


@pytest.mark.parametrize("shows", ["nothing", "another CA's certificate"])
def test_a_server_that_requires_a_client_certificate_is_explained(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, shows: str
) -> None:
    monkeypatch.setattr("modelreg._sync.runtime.sleep", lambda _: None)
    options = {"ca_file": str(servers.own.ca)}
    said = "pass client_certificate and client_key"
    if shows != "nothing":
        options |= {"client_certificate": str(servers.other.cert), "client_key": str(servers.other.key)}
        said = f"trusts the CA of the client certificate {servers.other.cert}"
    with pytest.raises(ConnectionFailed, match=said):
        version(f"grpcs://localhost:{servers.mutual}", **options)


def test_a_file_of_authorities_may_have_comments_in_any_language(servers: Servers, tmp_path: Path) -> None:
    commented = tmp_path / "ca.pem"
    commented.write_bytes("# Főtanúsítvány\n".encode() + servers.own.ca.read_bytes())
    assert version(f"grpcs://localhost:{servers.tls}", ca_file=str(commented)) == "1.2.3"


def test_files_that_are_no_certificates_are_named(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ca = f"grpcs://localhost:{servers.tls}", str(servers.own.ca)
    certificate, key = str(servers.client.cert), str(servers.client.key)
    text, binary, encrypted = tmp_path / "text.pem", tmp_path / "binary.pem", tmp_path / "encrypted.pem"
    text.write_text("nothing")
    binary.write_bytes(bytes(range(256)))
    command = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:abcd", "-out", str(encrypted)]
    subprocess.run(command, check=True, capture_output=True)
    wrong: list[tuple[dict[str, str], str]] = [
        ({"ca_file": str(tmp_path / "none")}, "ca_file: .* cannot be read: No such file"),
        ({"ca_file": str(text)}, "ca_file: .* is not a PEM file with certificates"),
        ({"ca_file": str(binary)}, "ca_file: .* is not a PEM file with certificates"),
        ({"client_certificate": certificate}, "needs both client_certificate and client_key"),
        ({"client_certificate": certificate, "client_key": str(tmp_path / "none")}, "client_key: .* cannot be read"),
        ({"client_certificate": certificate, "client_key": str(servers.other.key)}, "are not a certificate chain and"),
        ({"client_certificate": str(text), "client_key": key}, "are not a certificate chain and"),
        ({"client_certificate": certificate, "client_key": str(encrypted)}, "is encrypted"),
    ]
    for options, said in wrong:
        with pytest.raises(InvalidArgument, match=said):
            version(url, **({"ca_file": ca} | options))
    monkeypatch.setenv("SSL_CERT_FILE", str(text))
    with pytest.raises(InvalidArgument, match="SSL_CERT_FILE: "):
        version(url)


def test_a_diagnosis_of_a_good_server_finds_nothing(servers: Servers) -> None:
    for scheme, port in (("grpcs", servers.tls), ("grpc", servers.plain), ("grpc", servers.http1), ("grpc", 1)):
        assert diagnose(Options(endpoint=parse_url(f"{scheme}://localhost:{port}"))).hint == ""


# ---- proxies ----


@BOTH
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"])
def test_calls_go_through_the_proxy_of_the_environment(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, variable: str, call: Any
) -> None:
    is_tls = "https" in variable.lower()
    port = servers.tls if is_tls else servers.plain
    # Only the proxy can resolve the name, which the certificate is for.
    host = "localhost" if is_tls else "registry.lan"
    monkeypatch.setattr("modelreg.urls.Endpoint.is_loopback", False)
    options = {"ca_file": str(servers.own.ca)} if is_tls else {}
    with ConnectProxy() as proxy:
        monkeypatch.setenv(variable, f"http://user%40x:p%3Ass@{proxy.address}")
        assert call(f"{'grpcs' if is_tls else 'grpc'}://{host}:{port}", **options) == "1.2.3"
    (request,) = proxy.requests
    assert request.startswith(f"CONNECT {host}:{port} ")
    assert "Proxy-Authorization: Basic dXNlckB4OnA6c3M=" in request


@BOTH
def test_loopback_is_reached_without_a_proxy(servers: Servers, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert call(f"grpc://localhost:{servers.plain}") == "1.2.3"
    assert call(f"grpc://127.0.0.1:{servers.plain}") == "1.2.3"


@pytest.mark.parametrize(("status", "said"), [("407 Auth", "requires a user and password"), ("403 No", "set NO_PROXY")])
def test_a_proxy_that_refuses_is_named(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, status: str, said: str
) -> None:
    with ConnectProxy(status) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        with pytest.raises(ConnectionFailed, match=said):
            version(f"grpc://registry.lan:{servers.plain}")


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("grpc://a.lan", {}, None),
        ("grpc://a.lan", {"HTTP_PROXY": "p:1"}, "http://p:1"),
        ("http://a.lan", {"http_proxy": "http://p:1", "HTTP_PROXY": "http://q:1"}, "http://p:1"),
        ("grpc://a.lan", {"HTTPS_PROXY": "http://p:1"}, None),
        ("grpcs://a.lan", {"HTTPS_PROXY": "http://p:1", "HTTP_PROXY": "http://q:1"}, "http://p:1"),
        ("https://a.lan", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "b.lan, .c.lan"}, "http://p:1"),
        ("grpcs://a.lan", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "b.lan, a.lan"}, None),
        ("grpcs://a.b.lan", {"HTTPS_PROXY": "http://p:1", "no_proxy": ".lan"}, None),
        ("grpcs://a.b.lan", {"HTTPS_PROXY": "http://p:1", "no_proxy": "*.b.lan"}, None),
        ("grpcs://a.b.lan", {"HTTPS_PROXY": "http://p:1", "no_proxy": "B.LAN"}, None),
        ("grpcs://ab.lan", {"HTTPS_PROXY": "http://p:1", "no_proxy": "b.lan"}, "http://p:1"),
        ("grpcs://a.lan", {"HTTPS_PROXY": "http://p:1", "no_proxy": "*"}, None),
        ("grpcs://a.lan", {"HTTPS_PROXY": "http://p:1", "no_proxy": ",,"}, "http://p:1"),
        ("grpcs://a.lan:7", {"HTTPS_PROXY": "http://p:1", "no_proxy": "a.lan:7"}, None),
        ("grpcs://a.lan:7", {"HTTPS_PROXY": "http://p:1", "no_proxy": "a.lan:8"}, "http://p:1"),
        ("grpcs://10.1.2.3", {"HTTPS_PROXY": "http://p:1", "no_proxy": "10.0.0.0/8"}, None),
        ("grpcs://11.1.2.3", {"HTTPS_PROXY": "http://p:1", "no_proxy": "10.0.0.0/8"}, "http://p:1"),
        ("grpcs://[fd00::1]", {"HTTPS_PROXY": "http://p:1", "no_proxy": "fd00::/8"}, None),
        ("grpcs://[fd00::1]", {"HTTPS_PROXY": "http://p:1", "no_proxy": "fd00::1"}, None),
        ("grpcs://127.0.0.1", {"HTTPS_PROXY": "http://p:1"}, None),
        ("grpcs://[::1]", {"HTTPS_PROXY": "http://p:1"}, None),
        ("grpcs://x.localhost", {"HTTPS_PROXY": "http://p:1"}, None),
    ],
)
def test_the_proxy_of_a_url(url: str, environment: dict[str, str], proxy: str | None) -> None:
    assert Options(endpoint=parse_url(url)).proxy(environment) == proxy


@pytest.mark.parametrize("proxy", ["https://p:1", "socks5://p:1"])
def test_a_proxy_that_grpc_cannot_use_is_refused_instead_of_left_out(proxy: str) -> None:
    options = Options(endpoint=parse_url("grpcs://a.lan"))
    with pytest.raises(InvalidArgument, match=r"HTTPS_PROXY: gRPC needs a proxy of http://.*NO_PROXY=a\.lan"):
        options.proxy({"HTTPS_PROXY": proxy})
    assert options.proxy({"HTTPS_PROXY": proxy, "NO_PROXY": "a.lan"}) is None


# ---- silent connections ----


def _options_with(monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
    """Replace options of channels."""
    original = Options.channel_options

    def changed(options: Options) -> list[tuple[str, str | int]]:
        found = dict(original(options))
        assert values.keys() <= {name.removeprefix("grpc.").replace(".", "_") for name in found}
        return [
            (name, values.get(name.removeprefix("grpc.").replace(".", "_"), value)) for name, value in found.items()
        ]

    monkeypatch.setattr(Options, "channel_options", changed)


def test_a_silent_connection_is_noticed_within_45_seconds() -> None:
    """With the values of the next test instead of these, one can wait for it."""
    options = dict(Options(endpoint=parse_url("grpc://a.lan")).channel_options())
    for name in ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
        assert int(options["grpc.keepalive_time_ms"]) + int(options[name]) <= 45_000


@BOTH
def test_a_connection_that_falls_silent_is_noticed_by_keepalive(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: Any
) -> None:
    _options_with(monkeypatch, keepalive_time_ms=1000, keepalive_timeout_ms=500, http2_ping_timeout_ms=500)
    with HangingProxy("127.0.0.1", servers.plain) as proxy:
        url = f"grpc://127.0.0.1:{proxy.port}"

        def sync() -> float:
            with Registry(url, timeout=30) as registry:
                registry.server_info()
                proxy.hang()
                begin = time.monotonic()
                threading.Timer(3, proxy.resume).start()
                registry.server_info()
                return time.monotonic() - begin

        async def aio() -> float:
            async with modelreg.aio.Registry(url, timeout=30) as registry:
                await registry.server_info()
                proxy.hang()
                begin = time.monotonic()
                threading.Timer(3, proxy.resume).start()
                await registry.server_info()
                return time.monotonic() - begin

        with caplog.at_level(logging.DEBUG, "modelreg"):
            assert (sync() if call is version else asyncio.run(aio())) < 20
    assert "ping timeout" in caplog.text.lower() or "keepalive" in caplog.text.lower()


def test_a_server_that_never_answers_ends_with_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises((Unavailable, TimeoutError)):
        version(f"grpc://127.0.0.1:{listener.getsockname()[1]}", timeout=1)
