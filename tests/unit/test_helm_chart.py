"""The Helm chart, rendered as CI's values say: what Kubernetes would take, and whether it fits together."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import SecretStr

from registry_service import __version__
from registry_service.settings import CommonSettings, GatewaySettings, Settings, load
from registry_service.transport.grpc.health_servicer import LIVENESS
from tests.command_line import parse

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "model-registry"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
MINIMAL = CHART / "ci" / "minimal-values.yaml"
EVERYTHING = CHART / "ci" / "everything-values.yaml"
# The oldest that the chart is for, and the newest that there are schemas of.
KUBERNETES = ("1.27", kubernetes_validate.latest_version())
# Of operators and gateways: Kubernetes has no schema of its own for them.
CUSTOM = {"ServiceMonitor", "HTTPRoute"}
SETTINGS: dict[str, type[CommonSettings]] = {"serve": Settings, "gateway": GatewaySettings, "migrate": Settings}
# What other parts of our containers read from the environment.
FOREIGN = ("OTEL_",)
# More files of certificates, which come by `extraVolumes` and are named by `extraEnv`.
FILES = {
    "CLIENT_CA_CERT",
    "CLIENT_CERT",
    "CLIENT_PRIVATE_KEY",
    "OIDC_CA_CERT",
    "PSQL_CLIENT_CERT",
    "PSQL_CLIENT_PRIVATE_KEY",
}
LOCAL_STORE = {"ARTIFACT_STORE", "ARTIFACT_DIR", "PSQL_DATA_DIR", "DISK_RESERVE_BYTES"}

Document = dict[str, Any]


@cache
def helm_binary() -> str:
    """The program helm (HELM_BINARY, else on PATH); the test is skipped where there is none."""
    found = os.environ.get("HELM_BINARY") or shutil.which("helm")
    if found is None:
        pytest.skip("needs helm on PATH, or HELM_BINARY")
    return found


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm_binary(), *arguments], capture_output=True, text=True, timeout=60, check=False)


@dataclass(frozen=True)
class Release:
    """What the chart makes of a file of values."""

    values: Document
    documents: list[Document]

    def of_kind(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str, component: str) -> Document:
        (found,) = (document for document in self.of_kind(kind) if component_of(document) == component)
        return found

    def pod_templates(self) -> list[Document]:
        return [document["spec"]["template"] for document in (*self.of_kind("Deployment"), *self.of_kind("Job"))]

    def containers(self) -> list[Document]:
        return [container for template in self.pod_templates() for container in template["spec"]["containers"]]

    def environment(self, container: Document) -> dict[str, str]:
        """What a container finds in its environment, but for what Secrets say."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if name := source.get("configMapRef", {}).get("name"):
                (config,) = (map_ for map_ in self.of_kind("ConfigMap") if map_["metadata"]["name"] == name)
                found |= config["data"]
        return found | {entry["name"]: entry["value"] for entry in container.get("env", []) if "value" in entry}


def component_of(document: Document) -> str:
    return str(document["metadata"]["labels"]["app.kubernetes.io/component"])


@cache
def rendered(file: Path, *more: str) -> Release:
    """Renders the chart with a file of values, and further ones as `--set` takes them."""
    sets = [argument for value in more for argument in ("--set", value)]
    answer = helm("template", "release", str(CHART), "--namespace", "models", "--values", str(file), *sets)
    assert answer.returncode == 0, answer.stderr
    documents = [document for document in yaml.safe_load_all(answer.stdout) if document]
    return Release(yaml.safe_load(file.read_text(encoding="utf-8")), documents)


@pytest.fixture(params=VALUES, ids=lambda file: file.name.removesuffix("-values.yaml"))
def release(request: pytest.FixtureRequest) -> Release:
    """The chart with each of CI's files of values."""
    return rendered(request.param)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def secret_names() -> set[str]:
    """The settings that are secrets, or belong to one."""
    secrets = {
        name.upper()
        for kind in (Settings, GatewaySettings)
        for name, field in kind.model_fields.items()
        if SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ()))
    }
    return secrets | {"MINIO_ACCESS_KEY"}


# ---- what Kubernetes and Helm say ----


@pytest.mark.parametrize("file", VALUES, ids=lambda file: file.name)
def test_helm_has_nothing_to_complain_of(file: Path) -> None:
    answer = helm("lint", "--strict", str(CHART), "--values", str(file))
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(release: Release, version: str) -> None:
    for document in release.documents:
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, version, strict=True)


def test_custom_resources_are_what_their_operators_take() -> None:
    release = rendered(EVERYTHING)
    (monitor,) = release.of_kind("ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(monitor["spec"]) == {"jobLabel", "selector", "endpoints"}
    assert set(monitor["spec"]["endpoints"][0]) == {"port", "interval", "scrapeTimeout"}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (route,) = release.of_kind("HTTPRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert set(route["spec"]) == {"parentRefs", "hostnames", "rules"}


def test_names_are_unique_and_short_enough(release: Release) -> None:
    names = [(document["kind"], document["metadata"]["name"]) for document in release.documents]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for _, name in names)


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == __version__
    assert rendered(MINIMAL).containers()[0]["image"] == f"model-registry:{__version__}"


# ---- values ----


@pytest.mark.parametrize(
    "mistake",
    [
        "postgress.host=x",
        "postgres.hostname=x",
        "postgres.sslMode=maybe",
        "s3.host=https://s3.example.org",
        "settings.MAX_STREAM=3",
        "settings.PSQL_PASSWORD=x",
        "settings.OTEL_EXPORTER_OTLP_HEADERS=x",
        "settings.PSQL_HOSTNAME=x",
        "settings.ARTIFACT_STORE=local",
        "gateway.settings.MAX_STREAMS=3",
        "secrets.values.PASSWORD=x",
        "registry.replicas=0",
        "registry.autoscaling.minReplica=1",
        "gateway.service.type=Internal",
        "networkPolicy.grpcFrom[0].namespace=x",
        "podSecurityContext.runAsUser=0",
        "podSecurityContext.runAsNonRoot=false",
        "tls.enabled=true",
        "ingress.enabled=true",
        "httpRoute.enabled=true",
        "image.digest=latest",
    ],
)
def test_a_mistake_in_the_values_is_refused(mistake: str) -> None:
    answer = helm("template", str(CHART), "--values", str(MINIMAL), "--set", mistake)
    assert answer.returncode != 0
    assert "values don't meet the specifications of the schema" in answer.stderr


@pytest.mark.parametrize("missing", ["postgres.host=", "s3.host=", "secrets.values.PSQL_PASSWORD=null"])
def test_what_is_needed_must_be_there(missing: str) -> None:
    answer = helm("template", str(CHART), "--values", str(MINIMAL), "--set", missing)
    assert answer.returncode != 0
    assert missing.partition("=")[0].rpartition(".")[2] in answer.stderr


def schema_names(*path: str) -> set[str]:
    """The names that values.schema.json lists under a path."""
    node = yaml.safe_load((CHART / "values.schema.json").read_text(encoding="utf-8"))
    for key in path:
        node = node["properties"][key]
    return set(node["propertyNames"]["anyOf"][0]["enum"])


@pytest.mark.parametrize(("path", "command"), [(("settings",), "serve"), (("gateway", "settings"), "gateway")])
def test_the_schema_lists_the_settings_that_nothing_else_sets(path: tuple[str, ...], command: str) -> None:
    release = rendered(EVERYTHING)
    values = release.values
    for key in path:
        values = values[key]
    (container,) = (found for found in release.containers() if found["args"] == [command])
    set_by_the_chart = release.environment(container).keys() - values.keys()
    names = {name.upper() for name in SETTINGS[command].model_fields if not name.startswith("otel_")}
    assert schema_names(*path) == names - set_by_the_chart - secret_names() - LOCAL_STORE - FILES


def test_the_schema_lists_the_secrets() -> None:
    assert schema_names("secrets", "values") == {name for name in secret_names() if not name.startswith("OTEL_")}


def test_every_value_is_described_where_it_stands() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = yaml.safe_load((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]) == {*values, "global"}
    for name in ("registry", "gateway", "postgres", "s3", "networkPolicy", "metrics", "tls", "image"):
        assert set(schema["properties"][name]["properties"]) == set(values[name])


# ---- environment and secrets ----


def test_every_variable_is_a_setting(release: Release) -> None:
    for container in release.containers():
        names = release.environment(container).keys()
        known = {name.upper() for name in SETTINGS[container["args"][0]].model_fields}
        assert not {name for name in names - known if not name.startswith(FOREIGN)}


def test_the_programs_take_their_environment(release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for container in release.containers():
        kind = SETTINGS[container["args"][0]]
        variables = release.environment(container)
        secrets = dict.fromkeys(("PSQL_PASSWORD", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"), "secret")
        if kind is Settings:
            variables = {"MINIO_HOSTNAME": "s3", **variables, **secrets}
        with monkeypatch.context() as patch:
            for name in kind.model_fields:
                patch.delenv(name.upper(), raising=False)
            for name, value in variables.items():
                if value.startswith("/etc/"):
                    # Files of its volumes.
                    assert any(value.startswith(mount["mountPath"]) for mount in container["volumeMounts"])
                    (tmp_path / Path(value).name).touch()
                    value = str(tmp_path / Path(value).name)  # noqa: PLW2901
                patch.setenv(name, value)
            load(kind)


def test_numbers_arrive_as_they_were_written() -> None:
    release = rendered(EVERYTHING)
    (container,) = (found for found in release.containers() if found["args"] == ["serve"])
    environment = release.environment(container)
    assert environment["ARTIFACT_MAX_BYTES"] == "68719476736"
    assert environment["HEALTH_INTERVAL_SECONDS"] == "0.5"
    assert environment["GETI_SERVER_SSL_VERIFY"] == "false"
    assert environment["PSQL_PORT"] == "6432"


def test_secrets_are_in_secrets_alone() -> None:
    release = rendered(MINIMAL)
    secrets = set(release.values["secrets"]["values"].values())
    for document in release.documents:
        text = yaml.safe_dump(document)
        assert document["kind"] == "Secret" or not [secret for secret in secrets if secret in text]
    for config in release.of_kind("ConfigMap"):
        assert not config["data"].keys() & secret_names()
    assert secrets == set(release.one("Secret", "registry")["stringData"].values())


def test_a_secret_that_exists_is_used_and_none_is_made() -> None:
    release = rendered(EVERYTHING)
    assert release.of_kind("Secret") == []
    (registry,) = (found for found in release.containers() if found["args"] == ["serve"])
    assert {"secretRef": {"name": "model-registry"}} in registry["envFrom"]
    (migration,) = (found for found in release.containers() if found["args"] == ["migrate"])
    assert [entry["valueFrom"]["secretKeyRef"]["name"] for entry in migration["env"] if "valueFrom" in entry] == [
        "model-registry"
    ]


def test_another_setting_or_secret_makes_other_pods() -> None:
    def template(*more: str) -> Document:
        found: Document = rendered(MINIMAL, *more).one("Deployment", "registry")["spec"]["template"]
        return found

    assert template("settings.MAX_STREAMS=3") != template() != template("secrets.values.PSQL_PASSWORD=other")


# ---- pods ----


def test_nothing_runs_as_root_or_may_more_than_it_needs(release: Release) -> None:
    for template in release.pod_templates():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        # Variables of a Service would pass for settings: one named `server` gives SERVER_PORT=tcp://….
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"].get("runAsUser", 10001) > 0
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
            assert set(container["resources"]) == {"requests", "limits"}
            assert "memory" in container["resources"]["limits"]


def test_pods_run_as_the_user_of_the_image() -> None:
    dockerfile = (CHART.parents[2] / "Dockerfile").read_text(encoding="utf-8")
    context = rendered(MINIMAL).pod_templates()[0]["spec"]["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile


def test_commands_are_commands_of_the_program(release: Release) -> None:
    for container in release.containers():
        parse(container["args"])
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            command = container.get(probe, {}).get("exec", {}).get("command")
            if command:
                assert command[0] == "model-registry"
                parse(command[1:])


def test_probes_ask_at_ports_that_are_there_and_where_the_program_listens(release: Release) -> None:
    for container in (found for found in release.containers() if found["args"] != ["migrate"]):
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        environment = release.environment(container)
        listens = "GRPC_PORT" if container["args"] == ["serve"] else "SERVER_PORT"
        assert str(ports["grpc" if container["args"] == ["serve"] else "rest"]) == environment[listens]
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container[name]
            for kind in ("tcpSocket", "httpGet", "grpc"):
                if kind in probe:
                    assert probe[kind]["port"] in {*ports, *ports.values()}


@pytest.mark.parametrize("file", [MINIMAL, EVERYTHING], ids=["plain", "tls"])
def test_a_registry_that_answers_no_more_is_restarted_and_one_that_lacks_its_dependencies_is_not(file: Path) -> None:
    registry = next(found for found in rendered(file).containers() if found["args"] == ["serve"])
    probe = registry["livenessProbe"]
    if file == MINIMAL:
        assert probe["grpc"] == {"port": 50051, "service": LIVENESS}
    else:
        assert probe["exec"]["command"] == ["model-registry", "check", "--live"]
        # A check gives up by itself after five.
        assert probe["timeoutSeconds"] > 5
    assert probe["periodSeconds"] * probe["failureThreshold"] <= 30


@pytest.mark.parametrize("file", [MINIMAL, EVERYTHING], ids=["plain", "tls"])
def test_readiness_is_asked_for_in_the_language_of_the_port(file: Path) -> None:
    release = rendered(file)
    registry, gateway = (
        next(found for found in release.containers() if found["args"] == [command])["readinessProbe"]
        for command in ("serve", "gateway")
    )
    if file == MINIMAL:
        assert registry["grpc"] == {"port": 50051}
        assert gateway["httpGet"]["scheme"] == "HTTP"
    else:
        assert registry["exec"]["command"] == ["model-registry", "check"]
        assert gateway["httpGet"]["scheme"] == "HTTPS"
    assert gateway["httpGet"]["path"] == "/health"


@pytest.mark.parametrize(("file", "scheme"), [(MINIMAL, "HTTP"), (EVERYTHING, "HTTPS")], ids=["plain", "tls"])
def test_a_gateway_that_answers_no_more_is_restarted_and_one_without_a_registry_is_not(file: Path, scheme: str) -> None:
    gateway = next(found for found in rendered(file).containers() if found["args"] == ["gateway"])
    probe = gateway["livenessProbe"]
    assert probe["httpGet"] == {"path": "/live", "port": "rest", "scheme": scheme}
    assert probe["periodSeconds"] * probe["failureThreshold"] <= 30


def test_a_gateway_that_demands_certificates_is_asked_by_a_client_that_has_one() -> None:
    release = rendered(
        EVERYTHING,
        "gateway.extraEnv[0].name=CLIENT_CA_CERT,gateway.extraEnv[0].value=/etc/clients/ca.crt",
    )
    gateway = next(found for found in release.containers() if found["args"] == ["gateway"])
    assert gateway["readinessProbe"]["exec"]["command"] == ["model-registry", "check", "--rest"]
    assert gateway["livenessProbe"]["exec"]["command"] == ["model-registry", "check", "--rest", "--live"]
    for name in ("readinessProbe", "livenessProbe"):
        # A check gives up by itself after five.
        assert gateway[name]["timeoutSeconds"] > 5
        command = gateway[name]["exec"]["command"]
        parse(command[1:])
    for container in release.containers():
        probes = [container.get(name, {}) for name in ("startupProbe", "readinessProbe", "livenessProbe")]
        assert not any("httpGet" in probe for probe in probes), "the kubelet has no certificate to show"


def test_a_start_may_take_as_long_as_the_program_waits(release: Release) -> None:
    for container in (found for found in release.containers() if found["args"] == ["serve"]):
        probe = container["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] > default("startup_timeout_seconds")


def test_calls_may_finish_before_a_pod_is_killed(release: Release) -> None:
    settings = release.values.get("settings", {})
    grace = settings.get("SHUTDOWN_GRACE_SECONDS", default("shutdown_grace_seconds"))
    spec = release.one("Deployment", "registry")["spec"]["template"]["spec"]
    delay = float(release.environment(spec["containers"][0])["SHUTDOWN_DELAY_SECONDS"])
    assert spec["terminationGracePeriodSeconds"] > delay + grace
    spec = release.one("Deployment", "gateway")["spec"]["template"]["spec"]
    # A call through the gateway lasts as long as one that is not.
    assert spec["terminationGracePeriodSeconds"] > default("shutdown_grace_seconds") + pre_stop_seconds(
        spec["containers"][0]
    )


def default(name: str) -> float:
    return float(Settings.model_fields[name].default)


def pre_stop_seconds(container: Document) -> int:
    if "lifecycle" not in container:
        return 0
    sleep, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    return int(seconds)


def test_mounts_are_of_volumes_that_are_there(release: Release) -> None:
    for template in release.pod_templates():
        volumes = [volume["name"] for volume in template["spec"]["volumes"]]
        for container in template["spec"]["containers"]:
            assert [mount["name"] for mount in container["volumeMounts"]] == volumes


# ---- how they find one another ----


def test_selectors_match_their_pods_and_no_others(release: Release) -> None:
    pods = {component_of(template): template["metadata"]["labels"] for template in release.pod_templates()}
    selectors: list[tuple[str, dict[str, str]]] = []
    for kind in ("Deployment", "PodDisruptionBudget"):
        selectors += [
            (component_of(found), found["spec"]["selector"]["matchLabels"]) for found in release.of_kind(kind)
        ]
    selectors += [
        (component_of(found).removesuffix("-metrics"), found["spec"]["selector"])
        for found in release.of_kind("Service")
    ]
    selectors += [
        (component_of(found), found["spec"]["podSelector"]["matchLabels"]) for found in release.of_kind("NetworkPolicy")
    ]
    for template in release.pod_templates():
        for constraint in template["spec"].get("topologySpreadConstraints", []):
            selectors.append((component_of(template), constraint["labelSelector"]["matchLabels"]))
    assert selectors
    for component, selector in selectors:
        assert [name for name, labels in pods.items() if selects(selector, labels)] == [component]


def test_services_lead_to_ports_of_their_pods(release: Release) -> None:
    for service in release.of_kind("Service"):
        component = component_of(service).removesuffix("-metrics")
        (container,) = release.one("Deployment", component)["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports
            if service["spec"].get("clusterIP") == "None":
                # There is nothing in between that could translate.
                assert port["port"] == ports[port["targetPort"]]


def test_the_gateway_finds_every_pod_of_the_registry(release: Release) -> None:
    (container,) = release.one("Deployment", "gateway")["spec"]["template"]["spec"]["containers"]
    host, port = release.environment(container)["GRPC_UPSTREAMS"].split(":")
    service = release.one("Service", "registry")
    assert service["metadata"]["name"] == host
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert int(port) in [entry["port"] for entry in service["spec"]["ports"]]


def test_ways_in_lead_to_the_gateway() -> None:
    release = rendered(EVERYTHING)
    service = release.one("Service", "gateway")
    (port,) = service["spec"]["ports"]
    (ingress,) = release.of_kind("Ingress")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": service["metadata"]["name"], "port": {"name": port["name"]}}
    (route,) = release.of_kind("HTTPRoute")
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": service["metadata"]["name"], "port": port["port"]}]


def test_metrics_are_monitored_and_not_where_the_api_is() -> None:
    release = rendered(EVERYTHING)
    (monitor,) = release.of_kind("ServiceMonitor")
    selector = monitor["spec"]["selector"]
    (expression,) = selector["matchExpressions"]
    monitored = [
        service
        for service in release.of_kind("Service")
        if selects(selector["matchLabels"], service["metadata"]["labels"])
        and service["metadata"]["labels"][expression["key"]] in expression["values"]
    ]
    assert sorted(map(component_of, monitored)) == ["gateway-metrics", "registry"]
    for service in monitored:
        assert "metrics" in [port["name"] for port in service["spec"]["ports"]]
    assert [port["name"] for port in release.one("Service", "gateway")["spec"]["ports"]] == ["rest"]


def test_only_the_gateway_and_named_peers_may_call_the_registry(release: Release) -> None:
    for policy in release.of_kind("NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        if component_of(policy) != "registry":
            continue
        for rule in policy["spec"]["ingress"]:
            assert rule["from"]
        gateway, *named = policy["spec"]["ingress"][0]["from"]
        assert gateway["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
        assert named == release.values.get("networkPolicy", {}).get("grpcFrom", [])


def test_pods_may_go_where_their_settings_send_them(release: Release) -> None:
    if not release.of_kind("NetworkPolicy"):
        return
    ports = {
        component: {
            port["port"]
            for rule in release.one("NetworkPolicy", component)["spec"]["egress"]
            for port in rule.get("ports", [])
        }
        for component in ("registry", "gateway", "migration")
    }
    (registry,) = (found for found in release.containers() if found["args"] == ["serve"])
    settings = release.environment(registry)
    postgres = int(settings["PSQL_PORT"])
    assert {53, postgres, int(settings["MINIO_SERVER_PORT"])} <= ports["registry"]
    assert {53, "grpc"} <= ports["gateway"]
    assert {53, postgres} == ports["migration"]


# ---- scaling and upgrades ----


def test_a_budget_lets_nodes_be_drained(release: Release) -> None:
    for deployment in release.of_kind("Deployment"):
        component = component_of(deployment)
        least = deployment["spec"].get("replicas")
        scalers = [found for found in release.of_kind("HorizontalPodAutoscaler") if component_of(found) == component]
        assert (least is None) == bool(scalers)
        for scaler in scalers:
            least = scaler["spec"]["minReplicas"]
            assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        budgets = [found for found in release.of_kind("PodDisruptionBudget") if component_of(found) == component]
        assert bool(budgets) == (least > 1)
        for budget in budgets:
            assert budget["spec"]["maxUnavailable"] < least
            assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_the_migration_needs_nothing_that_comes_after_it() -> None:
    release = rendered(MINIMAL)
    hooks = [found for found in release.documents if "helm.sh/hook" in found["metadata"].get("annotations", {})]
    weights = {found["kind"]: int(found["metadata"]["annotations"]["helm.sh/hook-weight"]) for found in hooks}
    assert weights.keys() == {"Secret", "NetworkPolicy", "Job"}
    assert weights["Job"] > max(weights["Secret"], weights["NetworkPolicy"])
    (job,) = release.of_kind("Job")
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert "envFrom" not in container
    assert "serviceAccountName" not in spec
    needed = {entry["valueFrom"]["secretKeyRef"]["name"] for entry in container["env"] if "valueFrom" in entry}
    assert needed == {found["metadata"]["name"] for found in hooks if found["kind"] == "Secret"}
    ordinary = {found["metadata"]["name"] for found in release.documents if found not in hooks}
    assert not needed & ordinary


def test_pods_of_one_node_or_zone_are_spread(release: Release) -> None:
    for template in release.pod_templates():
        constraints = template["spec"].get("topologySpreadConstraints", [])
        for one, other in itertools.combinations(constraints, 2):
            assert one["topologyKey"] != other["topologyKey"]
        for constraint in constraints:
            assert constraint["matchLabelKeys"] == ["pod-template-hash"]


def notes(*sets: str) -> Iterator[str]:
    arguments = [argument for value in sets for argument in ("--set", value)]
    answer = helm("install", "release", str(CHART), "--dry-run=client", "--values", str(MINIMAL), *arguments)
    assert answer.returncode == 0, answer.stderr
    yield from answer.stdout.partition("\nNOTES:\n")[2].splitlines()


def test_the_notes_warn_of_what_is_open() -> None:
    warnings = [line for line in notes() if line.startswith("WARNING: ")]
    assert len(warnings) == 2
    assert "no TLS" in warnings[1]
    said = "\n".join(notes("settings.GETI_HOST=https://geti.example.org", "tls.enabled=true", "tls.secretName=x"))
    assert "networkPolicy.registryEgress has no rule for https://geti.example.org" in said
    assert "no TLS" not in said
