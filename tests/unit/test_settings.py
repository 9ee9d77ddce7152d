"""How settings are read from the environment."""

import pytest

from registry_service.settings import GatewaySettings, SettingsError, load


def test_names_of_settings_are_case_insensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Server_Port", "8080")
    assert load(GatewaySettings).server_port == 8080


def test_an_empty_setting_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_PORT", "")
    assert load(GatewaySettings).server_port == 32002


def test_an_override_replaces_a_setting_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_PORT", "8080")
    assert load(GatewaySettings, server_port=9090).server_port == 9090


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_UPSTREAMS", "one:1, two:2")
    assert load(GatewaySettings).grpc_upstreams == ("one:1", "two:2")


def test_an_invalid_setting_is_named_as_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("server_port", "0")
    with pytest.raises(SettingsError, match=r"^SERVER_PORT: Input should be greater than or equal to 1$"):
        load(GatewaySettings)
