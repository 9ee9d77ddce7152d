"""The container files, as far as they can be checked without a container engine."""

import importlib.metadata
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry_service.settings import CommonSettings, GatewaySettings, Settings, load
from tests.command_line import parse

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, type[CommonSettings]] = {"serve": Settings, "gateway": GatewaySettings}
OWN = ["registry", "envoy"]
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<operator>:?[-?])?(?P<rest>[^}]*)\}")
# What Compose would take from a filled-in .env.
FILLED_IN = {
    "MR_PSQL_PASSWORD": "a-database-password",
    "MR_MINIO_ACCESS_KEY": "an-access-key",
    "MR_MINIO_SECRET_KEY": "a-secret-key",
}


def strings(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node


def interpolated(text: str) -> str:
    def value(variable: re.Match[str]) -> str:
        if variable["name"] in FILLED_IN:
            return FILLED_IN[variable["name"]]
        assert variable["operator"] == ":-", f"{variable[0]} has neither a value nor a default"
        return variable["rest"]

    return VARIABLE.sub(value, text)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def dockerfile() -> list[str]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def last(instructions: list[str], name: str) -> str:
    return next(line.removeprefix(f"{name} ") for line in reversed(instructions) if line.startswith(f"{name} "))


def test_compose_takes_the_file(tmp_path: Path) -> None:
    try:
        subprocess.run(["docker", "compose", "version"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no docker client with the compose plugin")
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in FILLED_IN.items()), encoding="utf-8")
    command = ["docker", "compose", "--env-file", str(env_file), "--file", str(ROOT / "compose.yaml"), "config"]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_the_four_services_are_there(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", "minio", "registry", "envoy"}


def test_named_volumes_and_networks_are_declared(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            assert interpolated(volume).split(":")[0] in compose["volumes"]
        assert set(service["networks"]) <= set(compose["networks"])


def test_every_service_is_waited_for_until_it_is_healthy(compose: dict[str, Any]) -> None:
    services = compose["services"]
    waits = {name: service.get("depends_on", {}) for name, service in services.items()}
    assert set(waits["registry"]) == {"postgres", "minio"}
    assert set(waits["envoy"]) == {"registry"}
    for needed in waits.values():
        for name, how in needed.items():
            assert how == {"condition": "service_healthy"}
            assert services[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", OWN)
def test_our_commands_are_commands_of_the_program(compose: dict[str, Any], name: str) -> None:
    command = compose["services"][name]["command"]
    parse(command)


def test_a_registry_that_hangs_is_replaced_although_containers_are_only_restarted_when_they_end(
    compose: dict[str, Any], dockerfile: list[str]
) -> None:
    assert "--workers=1" in compose["services"]["registry"]["command"]
    assert "--workers=1" in yaml.safe_load(last(dockerfile, "CMD"))
    assert compose["services"]["registry"]["restart"] == "unless-stopped"


def test_health_checks_use_programs_that_the_images_have(compose: dict[str, Any]) -> None:
    images = {"postgres": {"pg_isready"}, "minio": {"mc"}, "registry": {"model-registry"}}
    images["envoy"] = images["registry"]
    for name, service in compose["services"].items():
        program, *arguments = service["healthcheck"]["test"][1:]
        assert program in images[name]
        if program == "model-registry":
            parse(arguments)


@pytest.mark.parametrize("name", OWN)
def test_every_variable_of_our_containers_is_a_setting_with_a_valid_value(
    compose: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose["services"][name]
    kind = SETTINGS[service["command"][0]]
    environment = service["environment"]
    assert {variable.lower() for variable in environment} <= set(kind.model_fields)
    for field in kind.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, interpolated(value))
    load(kind)


def test_certificates_are_mounted_for_reading_alone(compose: dict[str, Any]) -> None:
    for name in OWN:
        assert compose["services"][name]["volumes"] == ["${MR_CERTIFICATES:-certificates}:/certificates:ro"]


@pytest.mark.parametrize("name", OWN)
def test_a_container_has_the_time_to_finish_its_requests(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    grace = SETTINGS[service["command"][0]].model_fields["shutdown_grace_seconds"].default
    assert int(service["stop_grace_period"].removesuffix("s")) > grace


def test_the_containers_reach_one_another(compose: dict[str, Any]) -> None:
    services = compose["services"]
    registry, envoy = services["registry"]["environment"], services["envoy"]["environment"]
    postgres, minio = services["postgres"]["environment"], services["minio"]["environment"]
    assert registry["PSQL_HOSTNAME"] == "postgres"
    assert registry["MINIO_HOSTNAME"] == "minio"
    assert envoy["GRPC_UPSTREAMS"] == f"registry:{Settings.model_fields['grpc_port'].default}"
    assert [registry[name] for name in ("PSQL_DATABASE", "MR_USER_NAME", "PSQL_PASSWORD")] == [
        postgres[name] for name in ("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD")
    ]
    assert [registry[name] for name in ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")] == [
        minio[name] for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD")
    ]


def test_only_rest_and_grpc_are_published_and_on_loopback_unless_told_otherwise(compose: dict[str, Any]) -> None:
    published = {
        name: [interpolated(port) for port in service["ports"]]
        for name, service in compose["services"].items()
        if "ports" in service
    }
    assert published == {"registry": ["127.0.0.1:50051:50051"], "envoy": ["127.0.0.1:32002:32002"]}


def test_no_secret_has_a_default(compose: dict[str, Any]) -> None:
    required = {
        variable["name"]
        for text in strings(compose)
        for variable in VARIABLE.finditer(text)
        if variable["operator"] == ":?"
    }
    assert required == set(FILLED_IN)
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|KEY", name):
                assert VARIABLE.fullmatch(value)


def test_defaults_are_those_of_the_program(compose: dict[str, Any]) -> None:
    for name in OWN:
        service = compose["services"][name]
        fields = SETTINGS[service["command"][0]].model_fields
        for variable, value in service["environment"].items():
            if ":-" in value:
                assert interpolated(value) == text_of(fields[variable.lower()].default)


def text_of(default: object) -> object:
    """How an environment says a default; a blank text counts as none."""
    if default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default).lower() if isinstance(default, bool) else default


def test_the_example_names_every_variable(compose: dict[str, Any]) -> None:
    used = {variable["name"]: variable for text in strings(compose) for variable in VARIABLE.finditer(text)}
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    to_fill_in = {line.removesuffix("=") for line in lines if line.endswith("=") and not line.startswith("#")}
    optional = dict(line.removeprefix("# ").split("=", 1) for line in lines if re.match(r"# MR_\w+=", line))
    assert to_fill_in == set(FILLED_IN)
    assert optional == {name: variable["rest"] for name, variable in used.items() if name not in FILLED_IN}


@pytest.mark.parametrize("name", OWN)
def test_our_containers_may_do_little(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_image_runs_the_program_as_an_ordinary_user(dockerfile: list[str]) -> None:
    assert int(last(dockerfile, "USER").partition(":")[0]) > 0
    entrypoint, command = (yaml.safe_load(last(dockerfile, name)) for name in ("ENTRYPOINT", "CMD"))
    scripts = importlib.metadata.entry_points(group="console_scripts")
    assert entrypoint == [scripts["model-registry"].name]
    parse(command)


def test_what_the_image_is_made_of_is_sent_to_the_engine(dockerfile: list[str]) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        source
        for line in dockerfile
        if line.startswith("COPY ") and "--from" not in line
        for source in shlex.split(line)[1:-1]
    }
    assert copied == sent
    for name in copied:
        assert (ROOT / name).exists()


def test_the_wheel_takes_nothing_that_the_image_lacks(dockerfile: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    files = [*wheel["packages"], *wheel["force-include"], *project["project"]["license-files"]]
    copies = " ".join(line for line in dockerfile if line.startswith("COPY "))
    for file in [*files, project["project"]["readme"]]:
        assert Path(file).parts[0] in copies.split()


def test_the_first_make_run_says_what_it_does_before_each_step() -> None:
    command = ["make", "--dry-run", "--always-make", "--directory", str(ROOT), "install"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    steps = [number for number, line in enumerate(lines) if "-m venv" in line or "pip install" in line]
    assert len(steps) == 3
    for number in steps:
        assert re.match(r"printf '%s\\n' \"\[.* s\] \w+", lines[number - 1])
    downloading = next(line for line in lines if "-r requirements.lock" in line)
    assert "--quiet" not in downloading


def test_what_is_said_of_the_gateways_connections_is_what_it_does() -> None:
    template = (ROOT / "gateway" / "envoy.yaml.j2").read_text(encoding="utf-8")
    manual = (ROOT / "docs" / "operations" / "alerts.md").read_text(encoding="utf-8")
    assert "max_active_downstream_connections:" in template
    (told,) = re.findall(r"Idle connections are closed after\s(\d+) seconds", manual)
    done = re.search(r"common_http_protocol_options:\s*\{?\s*idle_timeout: (\d+)s", template)
    assert done is not None
    assert told == done[1]
    # The alert names no number, because gateways have different limits.
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
    (full,) = (rule for group in alerts["groups"] for rule in group["rules"] if rule["alert"].endswith("GatewayFull"))
    assert full["expr"].endswith("> 0")
