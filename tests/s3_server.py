"""An S3 server for tests: MinIO if there is one, otherwise moto's server.

MinIO is found by MINIO_BINARY or on PATH. moto is an imitation: MOTO_GAPS lists its gaps, and a test that needs one of
them names the gap.
"""

import ipaddress
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.polling import eventually
from tests.ports import free_port

MOTO_GAPS = {
    "credentials": "moto accepts every access key and secret key",
    "aborted uploads": "moto fails with an internal error when an aborted upload is used",
    "keep-alive": "moto closes the connection after every answer",
}

READY_WITHIN_SECONDS = 60
STOPPED_WITHIN_SECONDS = 20


def minio_binary() -> str | None:
    """Return the path of MinIO, None without MinIO."""
    configured = os.environ.get("MINIO_BINARY")
    if configured:
        # A wrong setting must not silently select moto.
        if not os.access(configured, os.X_OK):
            raise FileNotFoundError(f"MINIO_BINARY is no program: {configured}")
        return configured
    return shutil.which("minio")


def pytest_report_header() -> str:
    binary = minio_binary()
    if binary:
        return f"S3: MinIO ({binary})"
    return "S3: moto, an imitation; set MINIO_BINARY or put minio on PATH for the real thing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """The files of a server's certificate for loopback, its key, and its CA."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Endpoint:
    """How to connect to a server: `S3Options` without the bucket."""

    host: str
    port: int
    access_key: str
    secret_key: str
    secure: bool
    ca_cert: Path | None


class S3Server:
    """One server on loopback, which can be stopped and started again on its port."""

    def __init__(self, folder: Path, certificates: Certificates | None = None) -> None:
        binary = minio_binary()
        self.kind: Literal["minio", "moto"] = "minio" if binary else "moto"
        self.endpoint = S3Endpoint(
            host="127.0.0.1",
            port=free_port(),
            access_key="tests-access-key",
            secret_key=uuid.uuid4().hex,
            secure=certificates is not None,
            ca_cert=certificates.ca if certificates else None,
        )
        self._folder = folder
        self._command = self._minio(binary, certificates) if binary else self._moto(certificates)
        self._process: subprocess.Popen[bytes] | None = None

    def require(self, capability: str) -> None:
        """Skip the test if this server lacks the capability, one of MOTO_GAPS."""
        reason = MOTO_GAPS[capability]
        if self.kind == "moto":
            pytest.skip(reason)

    def start(self) -> None:
        """Start the server, and wait until it responds."""
        log = self._folder / "server.log"
        if self._process is None:
            self._launch(log)
        else:
            assert self.kind == "moto", "started already"
            self._process.send_signal(signal.SIGUSR2)
        assert self._process is not None
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not self._is_ready():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
            if self._process.returncode is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"{self.kind} did not start:\n{log.read_text(errors='replace')}")

    def _launch(self, log: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "HOME": str(self._folder),
                    "MINIO_ROOT_USER": self.endpoint.access_key,
                    "MINIO_ROOT_PASSWORD": self.endpoint.secret_key,
                    "MINIO_BROWSER": "off",
                    "MINIO_UPDATE": "off",
                },
            )

    def stop(self) -> None:
        """Stop the server cleanly. It keeps its objects for the next start."""
        self._go_away(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server. It keeps its objects for the next start."""
        self._go_away(signal.SIGKILL)

    def close(self) -> None:
        """Stop the server for good. Do nothing if it is stopped already."""
        self._end(signal.SIGTERM)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server within a block: it accepts connections and does not respond."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGSTOP)
        # The signal returns at once: until every thread has stopped, one may still respond.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stop the server within a block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def _go_away(self, how: signal.Signals) -> None:
        if self.kind == "minio":
            self._end(how)
            return
        # moto keeps its objects in memory: the process stays, its port closes.
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGUSR1)
        eventually(self._is_port_closed, STOPPED_WITHIN_SECONDS, "a closed port")

    def _is_port_closed(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.endpoint.host, self.endpoint.port)) != 0

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOPPED_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _is_ready(self) -> bool:
        scheme, context = "http", None
        if self.endpoint.secure:
            scheme, context = "https", ssl.create_default_context(cafile=self.endpoint.ca_cert)
        # MinIO's health/ready and health/live respond with 200 before its drives are ready, while calls still fail.
        path = "minio/health/cluster" if self.kind == "minio" else "moto-api/data.json"
        url = f"{scheme}://{self.endpoint.host}:{self.endpoint.port}/{path}"
        try:
            with urlopen(url, timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError) as error:
            # HTTPError holds the response's socket.
            if hasattr(error, "close"):
                error.close()
            return False

    def _minio(self, binary: str, certificates: Certificates | None) -> list[str]:
        certs_dir = self._folder / "certs"
        certs_dir.mkdir(parents=True, exist_ok=True)
        if certificates:
            shutil.copy(certificates.cert, certs_dir / "public.crt")
            shutil.copy(certificates.key, certs_dir / "private.key")
        address = f"{self.endpoint.host}:{self.endpoint.port}"
        return [binary, "server", "--address", address, "--certs-dir", str(certs_dir), str(self._folder / "data")]

    def _moto(self, certificates: Certificates | None) -> list[str]:
        # A separate process, unlike ThreadedMotoServer: it can be frozen, and does not use the tests' memory.
        command = [sys.executable, str(Path(__file__).with_name("moto_server.py")), str(self.endpoint.port)]
        if certificates:
            command += [str(certificates.cert), str(certificates.key)]
        return command


@contextmanager
def running_s3(folder: Path, certificates: Certificates | None = None) -> Iterator[S3Server]:
    """Run a server on a free port of loopback, with TLS if it has certificates."""
    server = S3Server(folder, certificates)
    server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests. Each test uses its own bucket, and must not stop the server."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


def new_bucket_name() -> str:
    return f"tests-{uuid.uuid4().hex}"


class Authority:
    """A CA, in a new folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = f"Tests' CA {uuid.uuid4()}"
        self._certificate = (
            self._builder(name, None, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(self._key, hashes.SHA256())
        )
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str = "server") -> Certificates:
        """Create a certificate for 127.0.0.1 and localhost. It replaces one of the same name."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        certificate = (
            self._builder(f"Tests' {name}", self._certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        files = Certificates(cert=self._folder / f"{name}.crt", key=self._folder / f"{name}.key", ca=self.ca)
        files.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.touch(mode=0o600)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    @staticmethod
    def _builder(name: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return (
            x509.CertificateBuilder(subject_name=subject, issuer_name=issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )


def make_certificates(folder: Path) -> Certificates:
    """Create a CA and its certificate for 127.0.0.1 and localhost, in a new folder."""
    return Authority(folder).issue()


class TcpProxy:
    """Forwards TCP to a server, and cuts a connection after a number of response bytes.

    `limits` returns the limit of a connection, by its number; None means no limit.
    """

    def __init__(self, host: str, port: int, limits: Callable[[int], int | None], *, reset: bool = False) -> None:
        self._upstream = (host, port)
        self._limits = limits
        self._reset = reset
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        """The number of connections so far."""
        self.answered = 0
        """The response bytes forwarded so far, over all connections."""

    def __enter__(self) -> "TcpProxy":
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown() wakes accept(); close() alone does not.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for end in self._sockets:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._sockets:
            end.close()

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._upstream)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets += [client, server]
                limit = self._limits(self.connections)
                self.connections += 1
            self._run(self._pass_request, client, server)
            self._run(self._pass_answer, server, client, limit)

    def _pass_request(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        _shut(server, client)

    def _pass_answer(self, server: socket.socket, client: socket.socket, limit: int | None) -> None:
        passed, cut = 0, False
        with suppress(OSError):
            while not cut and (data := server.recv(65536)):
                # Cut only when the server sends more: with a limit of 0, after it has processed the request.
                cut = limit is not None and passed + len(data) > limit
                if cut and limit is not None:
                    data = data[: limit - passed]
                client.sendall(data)
                passed += len(data)
                with self._lock:
                    self.answered += len(data)
        if cut and self._reset:
            # Zero linger makes the close a reset, once the other thread's recv() has released the socket.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with suppress(OSError):
                client.shutdown(socket.SHUT_RD)
            client.close()
        _shut(server, client)


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
