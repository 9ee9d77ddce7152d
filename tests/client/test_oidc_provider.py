"""What the client asks of an OpenID provider, and what it refuses of a hostile or broken one."""

import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from modelreg import ConnectionFailed, InvalidArgument, PermissionDenied, Unauthenticated, Unsupported
from modelreg._access.oidc import Issuer
from modelreg._access.token_store import Grant, StoredToken

from tests.authorization_server import CLIENT, SECRET, Device
from tests.identity_provider import AUDIENCE, IdentityProvider, running_provider
from tests.s3_server import make_certificates

URL = "grpcs://registry.lan:50051"


# ---- grants ----


def test_a_user_signs_in_on_another_device(provider: IdentityProvider, public: Grant) -> None:
    issuer = Issuer(provider.issuer)
    assert issuer.supports_device_codes()
    code = issuer.device_code(public)
    assert code.verification_uri == "http://127.0.0.1:1/device"
    assert code.verification_uri_complete == f"http://127.0.0.1:1/device?user_code={code.user_code}"
    pauses: list[float] = []
    provider.authorization.interval = 0

    def user(device: Device) -> None:
        assert (device.scope, device.audience) == ("openid", AUDIENCE)
        if len(device.asked) == 3:
            device.subject = "grace"

    provider.authorization.users = user
    token = issuer.wait_for_user(code, public, URL, sleep=pauses.append)
    assert pauses == [1, 1, 1]
    assert (token.url, token.grant) == (URL, public)
    assert token.expire_time == pytest.approx(time.time() + 600, abs=10)
    assert jwt.decode(token.access_token, options={"verify_signature": False})["sub"] == "grace"


def test_a_device_asks_less_often_when_told_so_or_when_the_provider_is_away(
    provider: IdentityProvider, public: Grant
) -> None:
    issuer = Issuer(provider.issuer)
    code = issuer.device_code(public)
    pauses: list[float] = []
    provider.authorization.answers = [(400, {"error": "slow_down"}), (502, b""), (400, {"error": "access_denied"})]
    with pytest.raises(Unauthenticated, match="declined"):
        issuer.wait_for_user(code, public, URL, sleep=pauses.append)
    assert pauses == [1, 6, 12]


def test_a_code_that_nobody_uses_expires(provider: IdentityProvider, public: Grant) -> None:
    issuer = Issuer(provider.issuer)
    code = issuer.device_code(public)
    with pytest.raises(Unauthenticated, match="code expired"):
        issuer.wait_for_user(replace(code, expires_in=0.5), public, URL, sleep=lambda _: None)
    provider.authorization.answers = [(400, {"error": "expired_token"})]
    with pytest.raises(Unauthenticated, match="code expired"):
        issuer.wait_for_user(code, public, URL, sleep=lambda _: None)


@pytest.mark.parametrize("methods", [None, ["client_secret_post"], ["client_secret_basic", "client_secret_post"]])
def test_a_secret_is_sent_as_the_provider_wants_it(
    provider: IdentityProvider, secret: Grant, methods: list[str] | None
) -> None:
    provider.authorization.document = {"token_endpoint_auth_methods_supported": methods}
    assert Issuer(provider.issuer).client_credentials(secret, URL).access_token
    ((_, form),) = provider.authorization.requests
    assert ("client_secret" in form) == (methods == ["client_secret_post"])


def test_a_wrong_secret_is_refused(provider: IdentityProvider, secret: Grant) -> None:
    with pytest.raises(Unauthenticated, match=r"unknown client or secret. Check client id and secret") as caught:
        Issuer(provider.issuer).client_credentials(replace(secret, client_secret="wr0ng"), URL)
    assert "wr0ng" not in str(caught.value)


def test_a_refresh_token_is_revoked(provider: IdentityProvider, public: Grant) -> None:
    token = StoredToken(url=URL, access_token="a", refresh_token=provider.authorization.refresh_token(), grant=public)
    assert Issuer(provider.issuer).revoke(token) is True
    with pytest.raises(Unauthenticated, match="refresh token used or revoked"):
        Issuer(provider.issuer).refresh(token)
    provider.authorization.document = {"revocation_endpoint": None}
    assert Issuer(provider.issuer).revoke(token) is False


# ---- hostile and broken providers ----


def test_a_provider_without_device_codes_is_named(provider: IdentityProvider, public: Grant) -> None:
    provider.authorization.document = {"device_authorization_endpoint": None}
    issuer = Issuer(provider.issuer)
    assert not issuer.supports_device_codes()
    with pytest.raises(Unsupported, match="does not offer the device authorization grant"):
        issuer.device_code(public)


def test_the_configuration_of_another_issuer_is_refused(provider: IdentityProvider, public: Grant) -> None:
    provider.calls_itself = "https://login.example.org"
    with pytest.raises(ConnectionFailed, match=r"configuration of another issuer: 'https://login.example.org'"):
        Issuer(provider.issuer).device_code(public)


def test_a_path_without_a_configuration_is_refused(provider: IdentityProvider, public: Grant) -> None:
    with pytest.raises(ConnectionFailed, match=r"status 404. Check the URL of the issuer"):
        Issuer(f"{provider.issuer}/nowhere").device_code(public)


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.org",
        "ftp://login.example.org",
        "login.example.org",
        "https://",
        "https://a b",
        "https://a@b.org",
        "https://login.example.org\n",
        "https://login.ex\u0430mple.org",
        "https://a\\b",
        "http://127.0.0.1.evil.org",
    ],
)
def test_secrets_are_sent_only_to_https_or_loopback(provider: IdentityProvider, public: Grant, url: str) -> None:
    with pytest.raises(InvalidArgument, match="issuer: "):
        Issuer(url)
    provider.authorization.document = {"device_authorization_endpoint": url}
    with pytest.raises(InvalidArgument, match="device_authorization_endpoint: "):
        Issuer(provider.issuer).device_code(public)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(provider: IdentityProvider, secret: Grant, status: int) -> None:
    provider.authorization.answers = [(status, b"")]
    with pytest.raises(Unauthenticated, match=f"status {status}"):
        Issuer(provider.issuer).client_credentials(secret, URL)
    assert len(provider.authorization.requests) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "no valid access_token"),
        (b"[]", "not a JSON object"),
        (b"<html>", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
        (b" " * 2_000_000, "too large"),
        ({"access_token": 1}, "no valid access_token"),
        ({"access_token": "a\nb"}, "no valid access_token"),
        ({"access_token": "abc", "token_type": "mac"}, "another type than Bearer"),
    ],
)
def test_an_answer_that_is_no_token_is_refused(
    provider: IdentityProvider, secret: Grant, answer: Any, said: str
) -> None:
    provider.authorization.answers = [(200, answer)]
    with pytest.raises(ConnectionFailed, match=said):
        Issuer(provider.issuer).client_credentials(secret, URL)


@pytest.mark.parametrize(
    ("lifetime", "expires"), [("600", True), (None, False), ("soon", False), (-1, False), (1e300, False), (True, True)]
)
def test_lifetimes_of_any_kind_are_understood_or_left_out(
    provider: IdentityProvider, secret: Grant, lifetime: Any, expires: bool
) -> None:
    provider.authorization.answers = [(200, {"access_token": "abc", "expires_in": lifetime})]
    token = Issuer(provider.issuer).client_credentials(secret, URL)
    assert (token.expire_time is not None) == expires


@pytest.mark.parametrize(
    "answer",
    [
        {"user_code": "A\u202eB", "device_code": "a", "verification_uri": "https://a"},
        {"user_code": "A\x1b[2J", "device_code": "a", "verification_uri": "https://a"},
        {"user_code": "A", "device_code": "a", "verification_uri": "javascript:alert(1)"},
        {"user_code": "A", "device_code": "a", "verification_uri": "http://evil.org"},
        {"user_code": "A", "device_code": "a", "verification_uri": "https://a", "verification_uri_complete": "x:y"},
        {"user_code": "A", "verification_uri": "https://a"},
        {},
    ],
)
def test_a_device_code_that_should_not_be_shown_is_refused(
    provider: IdentityProvider, public: Grant, answer: dict[str, str]
) -> None:
    provider.authorization.answers = [(200, answer)]
    with pytest.raises((ConnectionFailed, InvalidArgument)):
        Issuer(provider.issuer).device_code(public)


def test_errors_of_a_provider_are_made_printable(provider: IdentityProvider, public: Grant) -> None:
    provider.authorization.answers = [(400, {"error": "x\x1b[2J", "error_description": "y" * 1000})]
    with pytest.raises(PermissionDenied) as caught:
        Issuer(provider.issuer).device_code(public)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_provider_with_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates, others = make_certificates(tmp_path / "own"), make_certificates(tmp_path / "others")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.cert, certificates.key)
    with running_provider(context) as provider:
        grant = Grant(issuer=provider.issuer, client_id=CLIENT, client_secret=SECRET)
        assert Issuer(provider.issuer, str(certificates.ca)).client_credentials(grant, URL).access_token
        for wrong in (None, str(others.ca)):
            with pytest.raises(ConnectionFailed, match=r"CERTIFICATE_VERIFY_FAILED.*Name its CA with --ca-file"):
                Issuer(provider.issuer, wrong).client_credentials(grant, URL)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        assert Issuer(provider.issuer).client_credentials(grant, URL).access_token
        provider.authorization.document = {"token_endpoint": "http://127.0.0.1:1/token"}
        with pytest.raises(ConnectionFailed, match="an endpoint without TLS"):
            Issuer(provider.issuer).client_credentials(grant, URL)


def test_a_provider_that_sends_a_byte_now_and_then_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelreg._access.oidc._TOTAL_SECONDS", 0.3)
    given_up = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
            while not given_up.wait(0.01):
                connection.sendall(b"y")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(ConnectionFailed, match=r"no answer within 0\.3 s"):
            Issuer(f"http://127.0.0.1:{listener.getsockname()[1]}").supports_device_codes()
        given_up.set()
        thread.join()


def test_a_provider_that_is_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match=r"No connection to http://127.0.0.1:1/.*Connection refused"):
        Issuer("http://127.0.0.1:1").supports_device_codes()
    with pytest.raises(InvalidArgument, match="ca_file: "):
        Issuer("https://127.0.0.1:1", str(tmp_path / "none.pem"))
