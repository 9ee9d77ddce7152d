"""The URL of a registry: which texts are one, and what they mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelreg import InvalidArgument
from modelreg.urls import DEFAULT_URL, parse_url


@pytest.mark.parametrize(
    ("text", "url", "target", "is_encrypted"),
    [
        ("grpc://127.0.0.1:50051", "grpc://127.0.0.1:50051", "127.0.0.1:50051", False),
        ("grpcs://registry.lan:443", "grpcs://registry.lan:443", "registry.lan:443", True),
        ("GRPCS://Registry.LAN", "grpcs://registry.lan:50051", "registry.lan:50051", True),
        ("http://registry.lan", "http://registry.lan:80", "registry.lan:80", False),
        ("https://registry.lan/", "https://registry.lan:443", "registry.lan:443", True),
        ("localhost", "grpc://localhost:50051", "localhost:50051", False),
        ("localhost:32001", "grpc://localhost:32001", "localhost:32001", False),
        ("127.8.8.8", "grpc://127.8.8.8:50051", "127.8.8.8:50051", False),
        ("[::1]:7", "grpc://[::1]:7", "[::1]:7", False),
        ("grpc://[fe80::1]", "grpc://[fe80::1]:50051", "[fe80::1]:50051", False),
        ("registry.lan", "grpcs://registry.lan:50051", "registry.lan:50051", True),
        ("registry.lan:1", "grpcs://registry.lan:1", "registry.lan:1", True),
        (DEFAULT_URL, "grpc://127.0.0.1:50051", "127.0.0.1:50051", False),
    ],
)
def test_a_url_is_parsed(text: str, url: str, target: str, is_encrypted: bool) -> None:
    endpoint = parse_url(text)
    assert (endpoint.url, endpoint.target, endpoint.is_encrypted) == (url, target, is_encrypted)
    assert parse_url(endpoint.url) == endpoint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not the URL of a registry"),
        ("grpc://", "is not the URL of a registry"),
        ("ftp://registry.lan", "must begin with grpc://"),
        ("unix:///run/registry.sock", "must begin with grpc://"),
        ("https://registry.lan/v1", "has no path"),
        ("https://registry.lan?x=1", "has no path"),
        ("https://registry.lan/#x", "has no path"),
        ("registry.lan/models", "has no path"),
        ("https://user:hunter2@registry.lan", "must not contain credentials"),
        ("grpc://registry.lan:port", "is not the URL of a registry"),
        ("grpc://registry.lan:70000", "is not the URL of a registry"),
        ("grpc://registry lan", "is not the URL of a registry"),
        ("grpc://registry.lan\n", "is not the URL of a registry"),
        ("grpc://[::1", "is not the URL of a registry"),
    ],
)
def test_what_is_no_url_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse_url(text)


@given(st.text() | st.text().map("grpc://{}".format))
def test_no_text_does_anything_but_raise_invalid_argument(text: str) -> None:
    try:
        endpoint = parse_url(text)
    except InvalidArgument:
        return
    assert parse_url(endpoint.url) == endpoint


@given(st.text(alphabet="/[]:?#a@. "))
def test_a_password_is_never_shown(text: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse_url(f"https://user:hunter2@{text}")
    assert "hunter2" not in str(raised.value)
