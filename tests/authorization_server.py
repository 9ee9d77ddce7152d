"""The endpoints of an OpenID provider that issue tokens: device codes, client credentials, refresh, revocation."""

import base64
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
PUBLIC_CLIENT = "mreg"
CLIENT, SECRET = "robot:1", "s3cret &=%+é"
Answer = tuple[int, Mapping[str, Any] | bytes]


@dataclass
class Device:
    """A device that waits for a user."""

    user_code: str
    scope: str
    audience: str
    subject: str | None = None
    is_declined: bool = False
    asked: list[float] = field(default_factory=list)
    """When the device asked for its token."""


class AuthorizationServer:
    """Issues tokens. Refresh tokens are for one use, so that a token that is refreshed twice is noticed.

    Args:
        sign: Returns a JSON Web Token with these claims.
    """

    def __init__(self, sign: Callable[..., str]) -> None:
        self._sign = sign
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._refresh_tokens: dict[str, dict[str, Any]] = {}
        self.devices: dict[str, Device] = {}
        self.lifetime = 600.0
        """Seconds until tokens expire; announced as `expires_in`."""
        self.issues_refresh_tokens = True
        self.interval = 1
        self.users: Callable[[Device], None] = lambda _: None
        """Called when a device asks for its token: the user may sign in."""
        self.answers: list[Answer] = []
        """Sent instead of the next answers."""
        self.document: dict[str, Any] = {}
        """Changes of the configuration under `/.well-known`."""
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.revoked: list[str] = []

    def configuration(self, issuer: str) -> dict[str, Any]:
        """Return what the provider says of these endpoints."""
        endpoints = {
            "device_authorization_endpoint": f"{issuer}/device",
            "token_endpoint": f"{issuer}/token",
            "revocation_endpoint": f"{issuer}/revoke",
        }
        return {name: value for name, value in (endpoints | self.document).items() if value is not None}

    def count(self, grant_type: str) -> int:
        """Return how often tokens were requested with a grant."""
        return sum(form.get("grant_type") == grant_type for _, form in self.requests)

    def refresh_token(self, **claims: Any) -> str:
        """Return a new refresh token."""
        token = f"refresh-{next(self._numbers)}"
        self._refresh_tokens[token] = claims
        return token

    def respond(self, path: str, body: bytes, authorization: str) -> Answer:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        with self._lock:
            self.requests.append((path, form))
            if self.answers:
                return self.answers.pop(0)
            client = self._client(form, authorization)
            if client is None:
                return 401, {"error": "invalid_client", "error_description": "unknown client or secret"}
            endpoint = path.rpartition("/")[2]
            if endpoint == "device":
                return self._device(form)
            if endpoint == "revoke":
                self.revoked.append(form["token"])
                self._refresh_tokens.pop(form["token"], None)
                return 200, b""
            return self._token(form, client)

    @staticmethod
    def _client(form: Mapping[str, str], authorization: str) -> str | None:
        if authorization:
            name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            return CLIENT if (unquote_plus(name), unquote_plus(secret)) == (CLIENT, SECRET) else None
        if "client_secret" in form:
            return CLIENT if (form.get("client_id"), form["client_secret"]) == (CLIENT, SECRET) else None
        return PUBLIC_CLIENT if form.get("client_id") == PUBLIC_CLIENT else None

    def _device(self, form: Mapping[str, str]) -> Answer:
        number = next(self._numbers)
        device = Device(f"WDJB-{number:04}", form.get("scope", ""), form.get("audience", ""))
        self.devices[f"device-{number}"] = device
        return 200, {
            "device_code": f"device-{number}",
            "user_code": device.user_code,
            "verification_uri": "http://127.0.0.1:1/device",
            "verification_uri_complete": f"http://127.0.0.1:1/device?user_code={device.user_code}",
            "expires_in": 60,
            "interval": self.interval,
        }

    def _token(self, form: Mapping[str, str], client: str) -> Answer:
        grant = form.get("grant_type")
        if grant == DEVICE_CODE:
            return self._device_token(form)
        if grant == "client_credentials":
            if client != CLIENT:
                return 400, {"error": "unauthorized_client"}
            return self._issue(sub="robot", refreshes=False)
        if grant == "refresh_token":
            claims = self._refresh_tokens.pop(form["refresh_token"], None)
            if claims is None:
                return 400, {"error": "invalid_grant", "error_description": "refresh token used or revoked"}
            return self._issue(**claims)
        return 400, {"error": "unsupported_grant_type"}

    def _device_token(self, form: Mapping[str, str]) -> Answer:
        device = self.devices.get(form.get("device_code", ""))
        if device is None:
            return 400, {"error": "expired_token"}
        if device.asked and time.monotonic() - device.asked[-1] < self.interval * 0.9:
            return 400, {"error": "slow_down"}
        device.asked.append(time.monotonic())
        self.users(device)
        if device.is_declined:
            return 400, {"error": "access_denied"}
        if device.subject is None:
            return 400, {"error": "authorization_pending"}
        return self._issue(sub=device.subject)

    def _issue(self, *, refreshes: bool = True, **claims: Any) -> Answer:
        token = self._sign(exp=int(time.time() + self.lifetime), jti=str(next(self._numbers)), **claims)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}
        if refreshes and self.issues_refresh_tokens:
            answer["refresh_token"] = self.refresh_token(**claims)
        return 200, answer
