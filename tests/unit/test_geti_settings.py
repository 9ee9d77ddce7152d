"""The settings of the connection to Geti."""

import logging

import pytest

from registry_service.settings import GetiSettings, SettingsError, load
from registry_service.wiring import build_geti

WHOLE = {
    "geti_host": "https://geti.example.org",
    "geti_token": "t0ken",
    "geti_server_api_version": "v1",
    "geti_organization_id": "organization",
    "geti_workspace_id": "workspace",
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*WHOLE, "geti_server_ssl_verify"):
        monkeypatch.delenv(name.upper(), raising=False)


def test_with_all_of_them_there_is_a_connection() -> None:
    geti = build_geti(load(GetiSettings, **WHOLE))
    assert geti is not None
    with geti:
        assert WHOLE["geti_token"] not in repr(vars(geti))


def test_without_any_there_is_none_and_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    assert build_geti(load(GetiSettings)) is None
    assert caplog.text == ""


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("blank", ["", "  ", None])
def test_without_one_there_is_none_and_the_log_says_which(
    caplog: pytest.LogCaptureFixture, name: str, blank: str | None
) -> None:
    with caplog.at_level(logging.WARNING):
        assert build_geti(load(GetiSettings, **WHOLE | {name: blank})) is None
    assert f"{name.upper()} must be set" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("geti_host", "geti.example.org"),
        ("geti_host", "ftp://geti.example.org"),
        ("geti_host", "https://user:s3cr3t@geti.example.org"),
        ("geti_host", "https://geti.example.org/?q=s3cr3t"),
        ("geti_host", "https://"),
        ("geti_host", "https://[::1"),
        ("geti_host", "https://geti.example.org:99999"),
        ("geti_token", "s3cr3t s3cr3t"),
        ("geti_token", "s3cr3t\ns3cr3t"),
        ("geti_token", "s3cr3t-é"),
        ("geti_server_ssl_verify", "s3cr3t"),
    ],
)
def test_what_is_wrong_is_refused_without_showing_it(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name.upper()) as caught:
        load(GetiSettings, **WHOLE | {name: value})
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(("text", "value"), [("False", False), ("true", True), ("", True), ("0", False)])
def test_the_certificate_is_verified_unless_the_setting_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, text: str, value: bool
) -> None:
    monkeypatch.setenv("GETI_SERVER_SSL_VERIFY", text)
    assert load(GetiSettings).geti_server_ssl_verify is value


def test_a_host_may_have_a_path_and_a_port() -> None:
    for host in ("http://127.0.0.1:8000", "https://[::1]:443", "https://geti.example.org/a/b/"):
        assert load(GetiSettings, geti_host=host).geti_host == host
