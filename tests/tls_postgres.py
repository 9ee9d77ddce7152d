"""A TLS proxy in front of the embedded Postgres, which has no TLS; and a Postgres with TLS, if one is installed.

What libpq sees of the front is a server with TLS in every respect: it asks for it
in the protocol's own way, and gets the certificate, the request for its own, or
the answer that there is no TLS.
"""

import os
import pwd
import select
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from registry_service.embedded.postgres import NAME, PostgresAddress
from registry_service.embedded.process import User, run, spawn, stop
from tests.polling import eventually
from tests.ports import free_port
from tests.s3_server import Certificates

# The messages that request TLS, and encryption by Kerberos.
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
_GSS_REQUEST = bytes.fromhex("0000000804d21630")


class TlsFront:
    """Listens on a port of every address, and forwards to a Postgres, with TLS or without."""

    def __init__(self, address: PostgresAddress, certificates: Certificates | None, client_ca: Path | None) -> None:
        self._upstream = str(address.socket_dir / f".s.PGSQL.{address.port}")
        self._context: ssl.SSLContext | None = None
        if certificates is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificates.cert, certificates.key)
            if client_ca is not None:
                self._context.load_verify_locations(client_ca)
                self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("", 0))
        self.port = int(self._listener.getsockname()[1])
        self.encrypted: list[bool] = []
        """For each forwarded connection, whether it used TLS."""
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for end in self._ends:
            _shut(end)
        for thread in self._threads[1:]:
            thread.join()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._ends.append(client)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        upstream = socket.socket(socket.AF_UNIX)
        self._ends.append(upstream)
        with suppress(OSError):
            begun = client.recv(8, socket.MSG_WAITALL)
            while begun == _GSS_REQUEST or (begun == _SSL_REQUEST and self._context is None):
                client.sendall(b"N")
                begun = client.recv(8, socket.MSG_WAITALL)
            if not begun:
                return
            encrypted = begun == _SSL_REQUEST
            upstream.connect(self._upstream)
            if encrypted and self._context is not None:
                client.sendall(b"S")
                client = self._context.wrap_socket(client, server_side=True)
                self._ends.append(client)
            else:
                upstream.sendall(begun)
            self.encrypted.append(encrypted)
            _exchange(client, upstream)
        _shut(client)
        _shut(upstream)


def _exchange(client: socket.socket, upstream: socket.socket) -> None:
    """Forward in both directions until one ends. One thread does both, as threads cannot share a TLS connection."""
    other = {client: upstream, upstream: client}
    while True:
        unread = isinstance(client, ssl.SSLSocket) and client.pending()
        for source in [client] if unread else select.select([client, upstream], [], [])[0]:
            if not (data := source.recv(65536)):
                return
            other[source].sendall(data)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def tls_front(
    address: PostgresAddress, certificates: Certificates | None, *, client_ca: Path | None = None
) -> Iterator[TlsFront]:
    """Run a proxy in front of a Postgres, without TLS if `certificates` is None. `client_ca` requires clients' own."""
    front = TlsFront(address, certificates, client_ca)
    try:
        yield front
    finally:
        front.close()


@contextmanager
def own_tls_postgres(folder: Path, server: Certificates, client: Certificates) -> Iterator[int]:
    """Run a Postgres from PATH, and yield its port on localhost.

    It accepts clients with a certificate of the client's CA, as the user NAME, and
    nobody else. The database is `postgres`.
    """
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    if initdb is None or postgres is None:
        pytest.skip("needs initdb and postgres on PATH, 15 or newer and with TLS")
    user = None
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        user = User(uid=entry.pw_uid, gid=entry.pw_gid, name="nobody")
    cluster, env = folder / "cluster", {"PATH": os.defpath, "LC_ALL": "C"}
    cluster.mkdir(mode=0o700)
    _give(cluster, user)
    making: list[str | Path] = [initdb, "-D", cluster, "-U", NAME, "--auth=trust", "--encoding=UTF8", "--locale=C"]
    run([*making, "--no-sync"], user=user, env=env, cwd=Path("/"), seconds=120)
    (cluster / "pg_hba.conf").write_text("hostssl all all all cert map=any\n")
    (cluster / "pg_ident.conf").write_text(f"any /^.*$ {NAME}\n")
    files = {"ssl_cert_file": server.cert, "ssl_key_file": server.key, "ssl_ca_file": client.ca}
    port = free_port()
    command: list[str | Path] = [postgres, "-D", cluster, "-p", str(port), "-c", "ssl=on", "-c", "fsync=off"]
    for name, value in {"listen_addresses": "localhost", "unix_socket_directories": ""}.items():
        command += ["-c", f"{name}={value}"]
    for name, file in files.items():
        _give(Path(shutil.copy(file, cluster)), user)
        (cluster / file.name).chmod(0o600)
        command += ["-c", f"{name}={file.name}"]

    def answers() -> bool:
        psycopg.connect(
            host="localhost",
            port=port,
            user=NAME,
            dbname="postgres",
            sslmode="require",
            sslcert=str(client.cert),
            sslkey=str(client.key),
            connect_timeout=5,
        ).close()
        return True

    with (folder / "postgres.log").open("ab") as log:
        process = spawn(command, death_signal=signal.SIGINT, user=user, env=env, cwd=Path("/"), output=log)
    try:
        eventually(answers, what="Postgres")
        yield port
    finally:
        stop(process, (signal.SIGINT, 30))


def _give(path: Path, user: User | None) -> None:
    if user is not None:
        os.chown(path, user.uid, user.gid)
