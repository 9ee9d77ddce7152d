"""Tokens of OpenID providers: discovery, the device authorization and client credentials grants, refresh, revocation.

Everything that a provider sends is bounded and checked. Nothing follows a redirect, because what is sent are secrets.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from modelreg._access.token_store import Grant, StoredToken
from modelreg._access.tokens import checked_token
from modelreg._logging import logger
from modelreg._version import __version__
from modelreg.errors import ConnectionFailed, InvalidArgument, PermissionDenied, Unauthenticated, Unsupported
from modelreg.urls import is_loopback

_STEP_SECONDS = 10.0
_TOTAL_SECONDS = 20.0
_MAX_BYTES = 1024 * 1024
_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_DEFAULT_INTERVAL = 5.0
_MAX_INTERVAL = 60.0
_MAX_DEVICE_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class DeviceCode:
    """What the user needs to sign in on any device (RFC 8628)."""

    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    """The same with the code, for a QR code or a link."""
    device_code: str = field(repr=False)
    interval: float
    """Seconds between two questions whether the user has signed in."""
    expires_in: float


class Issuer:
    """An OpenID provider.

    Args:
        issuer: Its URL, exactly as in the claim `iss`.
        ca_file: PEM file with authorities to trust in addition to those of the system.

    Raises:
        InvalidArgument: The URL is not one of https (or http on loopback), or the CA file cannot be read.
    """

    def __init__(self, issuer: str, ca_file: str | None = None) -> None:
        self.issuer = checked_url(issuer, "issuer")
        self._opener = _opener(self.issuer, ca_file)
        self._document: Mapping[str, Any] | None = None

    def supports_device_codes(self) -> bool:
        """Tell whether the provider offers the device authorization grant."""
        return bool(self._discover().get("device_authorization_endpoint"))

    def device_code(self, grant: Grant) -> DeviceCode:
        """Begin to sign in on any device.

        Raises:
            Unsupported: The provider does not offer that.
            PermissionDenied: The provider refuses the client or its scopes.
            ConnectionFailed: The provider cannot be reached, or its answer is invalid.
        """
        endpoint = self._endpoint("device_authorization_endpoint", "the device authorization grant")
        answer = self._post(endpoint, self._parameters(grant), grant)
        if "error" in answer:
            raise PermissionDenied(
                f"{self.issuer} refuses to sign in the client {grant.client_id!r}: {_reason(answer)}."
            )
        complete = answer.get("verification_uri_complete")
        return DeviceCode(
            user_code=self._shown(answer, "user_code"),
            # Google's name for it is that of a draft.
            verification_uri=checked_url(
                self._shown(answer, "verification_uri" if "verification_uri" in answer else "verification_url"),
                "verification_uri",
            ),
            verification_uri_complete=checked_url(complete, "verification_uri_complete")
            if isinstance(complete, str)
            else None,
            device_code=self._shown(answer, "device_code"),
            interval=min(self._seconds(answer, "interval") or _DEFAULT_INTERVAL, _MAX_INTERVAL),
            expires_in=min(self._seconds(answer, "expires_in") or _MAX_DEVICE_SECONDS, _MAX_DEVICE_SECONDS),
        )

    def wait_for_user(
        self, code: DeviceCode, grant: Grant, url: str, sleep: Callable[[float], None] = time.sleep
    ) -> StoredToken:
        """Wait until the user has signed in, and return the token.

        Raises:
            Unauthenticated: The user declined, or the code expired.
            ConnectionFailed: The provider cannot be reached, or its answer is invalid.
        """
        endpoint = self._endpoint("token_endpoint", "tokens")
        deadline = time.monotonic() + code.expires_in
        interval = code.interval
        parameters = {"grant_type": _DEVICE_CODE, "device_code": code.device_code, "client_id": grant.client_id}
        while time.monotonic() + interval < deadline:
            sleep(interval)
            try:
                answer = self._post(endpoint, parameters, grant)
            except ConnectionFailed as failure:
                # RFC 8628, 3.5: ask less often after a timeout.
                logger.debug("%s", failure)
                interval = min(interval * 2, _MAX_INTERVAL)
                continue
            error = answer.get("error")
            if error == "slow_down":
                interval = min(interval + 5, _MAX_INTERVAL)
            elif error == "access_denied":
                raise Unauthenticated("The sign-in was declined.")
            elif error == "expired_token":
                break
            elif error != "authorization_pending":
                return self._token(answer, grant, url)
        raise Unauthenticated("The code expired before anybody signed in with it. Run `mreg login` again.")

    def client_credentials(self, grant: Grant, url: str) -> StoredToken:
        """Return a token for the client itself.

        Raises:
            Unauthenticated: The provider refuses the client.
            ConnectionFailed: The provider cannot be reached, or its answer is invalid.
        """
        endpoint = self._endpoint("token_endpoint", "tokens")
        parameters = {"grant_type": "client_credentials", **self._parameters(grant)}
        return self._token(self._post(endpoint, parameters, grant), grant, url)

    def refresh(self, token: StoredToken) -> StoredToken:
        """Return the next token after this one.

        Raises:
            Unauthenticated: There is none: the user must sign in again.
            ConnectionFailed: The provider cannot be reached, or its answer is invalid.
        """
        grant = token.grant
        if grant is not None and grant.client_secret is not None:
            return self.client_credentials(grant, token.url)
        if grant is None or token.refresh_token is None:
            raise Unauthenticated("The token has expired. Sign in again with `mreg login`.")
        parameters = {
            "grant_type": "refresh_token",
            "refresh_token": token.refresh_token,
            "client_id": grant.client_id,
        }
        endpoint = self._endpoint("token_endpoint", "tokens")
        return self._token(self._post(endpoint, parameters, grant), grant, token.url, token.refresh_token)

    def revoke(self, token: StoredToken) -> bool:
        """Revoke a token at the provider (RFC 7009). Return whether the provider offers that, and did it.

        Raises:
            ConnectionFailed: The provider cannot be reached, or its answer is invalid.
        """
        if token.grant is None or not self._discover().get("revocation_endpoint"):
            return False
        endpoint = self._endpoint("revocation_endpoint", "revocation")
        kind = "access_token" if token.refresh_token is None else "refresh_token"
        parameters = {
            "token": token.refresh_token or token.access_token,
            "token_type_hint": kind,
            "client_id": token.grant.client_id,
        }
        return "error" not in self._post(endpoint, parameters, token.grant)

    @staticmethod
    def _parameters(grant: Grant) -> dict[str, str]:
        # Not a standard, but some providers issue a token for an API only if this names it. Others ignore it.
        named = {"scope": " ".join(grant.scopes), "audience": grant.audience}
        return {"client_id": grant.client_id} | {name: value for name, value in named.items() if value}

    def _discover(self) -> Mapping[str, Any]:
        if self._document is None:
            url = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
            document = self._send(urllib.request.Request(url))  # noqa: S310 - checked_url allowed the scheme
            if "error" in document and "issuer" not in document:
                raise ConnectionFailed(f"{url}: {_reason(document)}. Check the URL of the issuer.")
            # Otherwise one provider could answer for another (OpenID Connect Discovery, 4.3).
            if document.get("issuer") != self.issuer:
                named = str(document.get("issuer"))[:200]
                raise ConnectionFailed(f"{url} is the configuration of another issuer: {named!r}.")
            self._document = document
        return self._document

    def _endpoint(self, name: str, purpose: str) -> str:
        found = self._discover().get(name)
        if not isinstance(found, str) or not found:
            raise Unsupported(
                f"{self.issuer} does not offer {purpose}. Sign in with a token: `mreg login --token-stdin`."
            )
        url = checked_url(found, name)
        if urlsplit(url).scheme != "https" and urlsplit(self.issuer).scheme == "https":
            raise ConnectionFailed(f"{self.issuer} names an endpoint without TLS ({name}), which nothing is sent to.")
        return url

    def _post(self, url: str, parameters: Mapping[str, str], grant: Grant) -> Mapping[str, Any]:
        sent = dict(parameters)
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if grant.client_secret is not None:
            methods = self._discover().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
            if isinstance(methods, list) and "client_secret_post" in methods and "client_secret_basic" not in methods:
                sent["client_secret"] = grant.client_secret
            else:
                # Each part is encoded as in a form before it goes into the header (RFC 6749, 2.3.1).
                pair = f"{quote_plus(grant.client_id)}:{quote_plus(grant.client_secret)}"
                headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
                sent.pop("client_id", None)
        body = urlencode(sent).encode()
        return self._send(urllib.request.Request(url, body, headers))  # noqa: S310 - checked_url allowed the scheme

    def _send(self, request: urllib.request.Request) -> Mapping[str, Any]:
        """Send a request, and return the JSON object of the response; that of an error has the member `error`."""
        request.add_header("accept", "application/json")
        request.add_header("user-agent", f"modelreg/{__version__}")
        try:
            status, body = self._exchange(request)
        except (OSError, ValueError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            raise ConnectionFailed(f"No connection to {request.full_url}: {cause}.{_hint(cause)}") from None
        try:
            answer = json.loads(body) if body.strip() else {}
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            answer = {}
            if status < 400:
                raise ConnectionFailed(f"{request.full_url} answered with something that is not a JSON object.")
        if status >= 500 or status == 429:
            raise ConnectionFailed(f"{request.full_url} answered with the status {status}. Try again later.")
        if status >= 300:
            return {"error": f"status {status}"} | answer
        return answer

    def _exchange(self, request: urllib.request.Request) -> tuple[int, bytes]:
        """Send a request, and return status and body of the response, within a total time.

        urllib bounds each step alone, so one byte now and then would go on forever.
        """
        outcome: list[tuple[int, bytes] | BaseException] = []

        def exchange() -> None:
            try:
                with self._opener.open(request, timeout=_STEP_SECONDS) as response:
                    outcome.append((response.status, b"".join(_read(response))))
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                outcome.append(error)

        thread = threading.Thread(target=exchange, name="modelreg-issuer", daemon=True)
        thread.start()
        thread.join(_TOTAL_SECONDS)
        if not outcome:
            raise TimeoutError(f"no answer within {_TOTAL_SECONDS:g} s")
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _token(
        self, answer: Mapping[str, Any], grant: Grant, url: str, refresh_token: str | None = None
    ) -> StoredToken:
        if "error" in answer:
            again = "Check client id and secret." if grant.client_secret else "Sign in again with `mreg login`."
            raise Unauthenticated(f"{self.issuer} issues no token: {_reason(answer)}. {again}")
        if str(answer.get("token_type", "bearer")).lower() != "bearer":
            raise ConnectionFailed(f"{self.issuer} issued a token of another type than Bearer.")
        seconds = self._seconds(answer, "expires_in")
        renewed = answer.get("refresh_token")
        return StoredToken(
            url=url,
            access_token=checked_token(self._shown(answer, "access_token"), "access_token"),
            refresh_token=renewed if isinstance(renewed, str) and renewed else refresh_token,
            expire_time=None if seconds is None else time.time() + seconds,
            grant=grant,
        )

    def _shown(self, answer: Mapping[str, Any], name: str) -> str:
        value = answer.get(name)
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ConnectionFailed(f"The answer of {self.issuer} has no valid {name}.")
        return value

    @staticmethod
    def _seconds(answer: Mapping[str, Any], name: str) -> float | None:
        value = answer.get(name)
        # Some providers send numbers as texts.
        try:
            seconds = float(value) if isinstance(value, (int, float, str)) else 0.0
        except (ValueError, OverflowError):
            return None
        return seconds if 0 < seconds < 1e10 else None


def checked_url(url: str, name: str) -> str:
    """Return a URL of an issuer if secrets may be sent there: https, or http on loopback; nothing invisible in it.

    Raises:
        InvalidArgument: The URL is another one.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise InvalidArgument(f"{name}: {url[:200]!r} is not a URL: {error}.") from None
    if not (url.isascii() and url.isprintable()) or " " in url or not host or "@" in parts.netloc or "\\" in url:
        raise InvalidArgument(f"{name}: {url[:200]!r} is not the URL of an OpenID provider.")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise InvalidArgument(f"{name}: {url} must begin with https://, because secrets are sent there.")
    return url


class _EveryStatus(urllib.request.HTTPErrorProcessor):
    """Returns responses of every status as they are, redirects too."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        del request
        return response

    https_response = http_response


def _opener(issuer: str, ca_file: str | None) -> urllib.request.OpenerDirector:
    # Reads SSL_CERT_FILE itself.
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f"ca_file: {ca_file} cannot be read: {error}.") from None
    handlers: list[urllib.request.BaseHandler] = [_EveryStatus(), urllib.request.HTTPSHandler(context=context)]
    if is_loopback(urlsplit(issuer).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _read(response: Any) -> Iterator[bytes]:
    """Yield the body, up to a size."""
    rest = _MAX_BYTES
    while piece := response.read1(min(rest + 1, 65536)):
        rest -= len(piece)
        if rest < 0:
            raise ValueError("the answer is too large")
        yield piece


def _hint(cause: object) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return " Name its CA with --ca-file, MODELREG_CA_FILE or SSL_CERT_FILE."
    return ""


def _reason(answer: Mapping[str, Any]) -> str:
    """Return the error of an answer, safe to show."""
    parts = [str(answer[name]) for name in ("error", "error_description") if answer.get(name)]
    text = ": ".join(parts)[:300]
    return "".join(character if character.isprintable() else "�" for character in text).rstrip(".")
