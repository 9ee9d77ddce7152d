"""An OpenID provider for tests: a real HTTP server with real keys, and any fault that a test asks for."""

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.authorization_server import AuthorizationServer

AUDIENCE = "model-registry-test"


class IdentityProvider:
    """A provider whose documents can be changed at any time. `asked` counts how often its keys were fetched."""

    def __init__(self, address: str) -> None:
        self.issuer = f"{address}/realms/models"
        self.calls_itself = self.issuer
        self.asked = 0
        self.status = 200
        self.body: bytes | None = None
        """The body of the response with the keys, instead of them."""
        self.keys: dict[str, PrivateKeyTypes] = {}
        self.add("rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048))
        self.add("ec", ec.generate_private_key(ec.SECP256R1()))
        self.authorization = AuthorizationServer(self.token)

    def add(self, key_id: str, key: PrivateKeyTypes) -> None:
        self.keys[key_id] = key

    def jwk(self, key_id: str) -> dict[str, Any]:
        """Return a public key as the provider publishes it."""
        key = self.keys[key_id].public_key()
        if isinstance(key, rsa.RSAPublicKey):
            found = RSAAlgorithm.to_jwk(key, as_dict=True)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            found = ECAlgorithm.to_jwk(key, as_dict=True)
        else:
            assert isinstance(key, ed25519.Ed25519PublicKey)
            found = OKPAlgorithm.to_jwk(key, as_dict=True)
        return found | {"kid": key_id, "use": "sig"}

    def claims(self, **others: Any) -> dict[str, Any]:
        """Return the claims of a valid token, with changes; None leaves a claim out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": now,
            "exp": now + 600,
            "roles": ["model-registry:reader", "another-service:admin"],
        } | others
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, key: str = "rsa", algorithm: str = "", headers: dict[str, Any] | None = None, **c: Any) -> str:
        """Return a token that one of the keys signs; `c` are claims."""
        named = {"kid": key} | (headers or {})
        if not algorithm:
            algorithm = "RS256" if isinstance(self.keys[key], rsa.RSAPrivateKey) else "ES256"
        signing: Any = self.keys[key]
        return jwt.encode(
            self.claims(**c), signing, algorithm, headers={k: v for k, v in named.items() if v is not None}
        )

    def answer(self, path: str) -> tuple[int, bytes]:
        if path == "/realms/models/.well-known/openid-configuration":
            known = {"issuer": self.calls_itself, "jwks_uri": f"{self.issuer}/certs", "ignored": 1}
            return 200, json.dumps(known | self.authorization.configuration(self.issuer)).encode()
        if path == "/realms/models/certs":
            self.asked += 1
            shown = {"keys": [self.jwk(key_id) for key_id in self.keys]}
            return self.status, json.dumps(shown).encode() if self.body is None else self.body
        return 404, b"{}"


@contextmanager
def running_provider(tls: ssl.SSLContext | None = None) -> Iterator[IdentityProvider]:
    """Run a provider, with TLS if there is a context for it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*found.answer(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, answer = found.authorization.respond(self.path, body, self.headers.get("authorization", ""))
            self._send(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", f"{found.issuer}/elsewhere")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = IdentityProvider(f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}")
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    """A running provider."""
    with running_provider() as found:
        yield found
