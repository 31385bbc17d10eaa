"""The chart as rendered: what services, Kubernetes and a careful reader would refuse is refused here."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib
from typing import Any

import pytest
from rendered_chart import CHART, EXAMPLES, ROOT, example_options, of_kind, pod_of, refused, render, run, tool
from skyscraper.bus.topics import topic_specs
from skyscraper.service.config import EnvironmentSettings, load_config

CONFIGS = {
    "publisher": "PublisherConfig",
    "decoder": "DecoderConfig",
    "inference": "InferenceServiceConfig",
    "tuner": "TunerConfig",
    "loader": "LoaderConfig",
    "burst": "BurstConfig",
}
BUILTIN = ("--set", "kafka.mode=builtin")
every_example = pytest.mark.parametrize("example", EXAMPLES)


def named(objects: tuple[dict[str, Any], ...], kind: str, name: str) -> dict[str, Any]:
    return next(one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)


def component(one: dict[str, Any]) -> str:
    return str(one["metadata"]["labels"]["app.kubernetes.io/component"])


def containers(objects: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    pods = [pod for one in objects if (pod := pod_of(one)) is not None]
    return [one for pod in pods for one in [*pod["containers"], *pod.get("initContainers", [])]]


@every_example
def test_helm_lints_an_example(example: str) -> None:
    run(tool("helm"), "lint", "--strict", "--kube-version", "1.34.0", str(CHART), *example_options(example))


def test_the_charts_unit_tests_pass() -> None:
    run(tool("helm-unittest"), str(CHART))


@every_example
def test_a_service_accepts_the_configuration_that_it_is_given(example: str, tmp_path: Any) -> None:
    checked = 0
    for one in of_kind(render(*example_options(example)), "ConfigMap"):
        service = re.sub(r"^(publisher|spot)-.*", r"\1", component(one)).replace("spot", "inference")
        if service not in CONFIGS or importlib.util.find_spec(f"skyscraper_{service}") is None:
            continue
        cls: type[EnvironmentSettings] = getattr(
            importlib.import_module(f"skyscraper_{service}.config"), CONFIGS[service]
        )
        path = tmp_path / "config.toml"
        path.write_text(one["data"]["config.toml"])
        secret = {f"{cls.env_prefix}KAFKA__SASL_PASSWORD": "x", f"{cls.env_prefix}KAFKA__SASL_USERNAME": "x"}
        needs = tomllib.loads(one["data"]["config.toml"]).get("kafka", {}).get("sasl_mechanism")
        load_config(cls, path, secret if needs else {})
        checked += 1
    assert checked >= 4


@every_example
def test_every_pod_holds_to_pod_security_restricted(example: str) -> None:
    objects = render(*example_options(example))
    for one in objects:
        pod = pod_of(one)
        if pod is None:
            continue
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not any("hostPath" in volume for volume in pod["volumes"])
    for container in containers(objects):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]


@every_example
def test_no_object_holds_a_secret(example: str) -> None:
    objects = render(*example_options(example))
    assert not of_kind(objects, "Secret")
    for one in of_kind(objects, "ConfigMap"):
        assert not re.search(r"(?i)password *=|://[^/\s\"]*@", "".join(one["data"].values()))


@every_example
def test_names_fit_kubernetes(example: str) -> None:
    for one in render(*example_options(example)):
        assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", one["metadata"]["name"])


def test_strimzi_topics_are_those_of_the_bus() -> None:
    options = ("--set", "kafka.mode=strimzi,kafka.strimzi.cluster=k,topics.streams=12,topics.retentionHours=6")
    found = {
        one["spec"]["topicName"]: (
            one["spec"]["partitions"],
            {key: str(value) for key, value in one["spec"].get("config", {}).items()},
        )
        for one in of_kind(render(*options), "KafkaTopic")
    }
    wanted = topic_specs(
        partitions=12, pipelines=["counting"], retention_seconds=6 * 3600, retention_bytes_per_partition=4 << 30
    )
    assert found == {spec.name: (spec.partitions, spec.config) for spec in wanted}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "kafka.bootstrapServers is empty"),
        (("kafka.mode=strimzi",), "kafka.strimzi.cluster is empty"),
        (
            ("kafka.bootstrapServers=k:9093", "kafka.security.protocol=SASL_SSL", "kafka.security.saslMechanism=PLAIN"),
            "kafka.security.existingSecret is empty",
        ),
        (("kafka.mode=builtin", "loader.replicas=2"), "loader.replicas is more than 1"),
        (("kafka.mode=builtin", "burst.enabled=true"), "burst.pools is empty"),
        (("kafka.mode=builtin", "tls.enabled=true"), "tls.certManager.issuerName is empty"),
        (
            ("kafka.mode=builtin", "keda.enabled=true", "inference.autoscaling.enabled=true"),
            "keda.prometheusAddress is empty",
        ),
        (
            ("kafka.mode=builtin", "publishers[0].name=a", "publishers[0].streams[0].id=s")
            + ("publishers[0].streams[0].source=rtsp://viewer:secret@camera/1",),
            "stream s holds credentials",
        ),
        (("kafka.mode=builtin", "decoder.config.grup=x"), "additional properties 'grup' not allowed"),
        (("kafka.mode=builtin", "decoder.config.instance=x"), "additional properties 'instance' not allowed"),
        (("kafka.mode=builtin", "tuner.config.plan_interval_seconds=-1"), "exclusiveMinimum"),
        (("kafka.mode=builtin", "kafka.builtin.nodePort=30092"), "kafka.builtin.nodeAddress is empty"),
    ],
)
def test_values_that_cannot_work_are_refused_with_the_remedy(options: tuple[str, ...], said: str) -> None:
    assert said in refused(*(word for option in options for word in ("--set", option)))


def test_every_grpc_connection_is_mutual_tls_where_it_is_asked_for(tmp_path: Any) -> None:
    sizes = "burst.pools[0].cores=1,burst.pools[0].minReplicas=0,burst.pools[0].maxReplicas=2"
    pool = f"burst.pools[0].name=s,burst.pools[0].cloud=gke,{sizes}"
    enabled = "burst.enabled=true,keda.enabled=true,keda.prometheusAddress=http://p:9090,tls.enabled=true"
    objects = render(*BUILTIN, "--set", f"{enabled},tls.certManager.issuerName=i,{pool}")
    [certificate] = of_kind(objects, "Certificate")

    def config(name: str) -> Any:
        return tomllib.loads(named(objects, "ConfigMap", f"video-skyscraper-{name}")["data"]["config.toml"])

    decoder, gateway = config("decoder"), config("burst")
    for client in (decoder["inference"]["tls"], decoder["burst"]["tls"], gateway["machine_tls"]):
        assert set(client) == {"ca_path", "certificate_path", "key_path"}
    for server in (config("inference")["tls"], config("spot-s")["tls"], gateway["tls"]):
        assert server["client_ca_path"]
    known = certificate["spec"]["dnsNames"]
    called = [decoder["inference"]["target"], *decoder["burst"]["targets"], *gateway["pools"][0]["targets"]]
    for target in called:
        host = target.removeprefix("dns:///").rpartition(":")[0]
        assert host in known or f"*.{host.partition('.')[2]}" in known
    [scaled] = [one for one in of_kind(objects, "ScaledObject") if one["metadata"]["name"].endswith("spot-s")]
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["metadata"]["scalerAddress"].rpartition(":")[0] in known
    keys = named(objects, "TriggerAuthentication", trigger["authenticationRef"]["name"])["spec"]["secretTargetRef"]
    assert {key["parameter"] for key in keys} == {"caCert", "tlsClientCert", "tlsClientKey"}


@pytest.mark.parametrize(("cloud", "notice"), [("eks", 120), ("gke", 30), ("aks", 30), ("generic", 30)])
def test_a_spot_pod_is_gone_before_the_notice_is_over(cloud: str, notice: int) -> None:
    pool = f"burst.pools[0].name=s,burst.pools[0].cloud={cloud},burst.pools[0].cores=1"
    sizes = "burst.pools[0].minReplicas=0,burst.pools[0].maxReplicas=2"
    objects = render(*BUILTIN, "--set", "burst.enabled=true", "--set", pool, "--set", sizes)
    spec = named(objects, "Deployment", "video-skyscraper-spot-s")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == notice - 5
    config = tomllib.loads(named(objects, "ConfigMap", "video-skyscraper-spot-s")["data"]["config.toml"])
    asleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert asleep + config["shutdown_seconds"] < spec["terminationGracePeriodSeconds"]
    assert ("nodeSelector" in spec) is (cloud != "generic")


def flows(objects: tuple[dict[str, Any], ...]) -> set[tuple[str, str]]:
    """(from, to) between components that both an egress and an ingress rule allow."""
    egress: set[tuple[str, str]] = set()
    ingress: set[tuple[str, str]] = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        own = _components(spec["podSelector"])
        egress |= {(a, b) for rule in spec.get("egress", []) for peer in rule["to"] for a in own for b in _peers(peer)}
        ingress |= {
            (a, b)
            for rule in spec.get("ingress", [])
            for peer in rule.get("from", [])
            for b in own
            for a in _peers(peer)
        }
    every = {name for pair in egress | ingress for name in pair} - {"*"}
    wide = {(a, b) for name, b in ingress for a in (every if name == "*" else {name})}
    return {(a, b) for a, b in egress if (a, b) in wide and a != "*"}


def _components(selector: dict[str, Any]) -> list[str]:
    key = "app.kubernetes.io/component"
    if key in selector["matchLabels"]:
        return [selector["matchLabels"][key]]
    chosen = [one["values"] for one in selector.get("matchExpressions", []) if one["key"] == key]
    return list(chosen[0]) if chosen else ["*"]


def _peers(peer: dict[str, Any]) -> list[str]:
    return _components(peer["podSelector"]) if "podSelector" in peer else []


def test_only_the_flows_of_the_design_are_open() -> None:
    pool = "burst.pools[0].name=s,burst.pools[0].cloud=gke,burst.pools[0].cores=1"
    sizes = "burst.pools[0].minReplicas=0,burst.pools[0].maxReplicas=2,publishers[0].name=p"
    objects = render(*BUILTIN, "--set", "burst.enabled=true", "--set", pool, "--set", sizes)
    to_kafka = {"decoder", "tuner", "loader", "topics", "fit", "test", "burst", "publisher-p"}
    wanted = {(name, "kafka") for name in to_kafka}
    wanted |= {("decoder", "inference"), ("decoder", "burst"), ("burst", "spot-s")}
    assert flows(objects) == wanted


def test_without_keda_replicas_are_fixed_and_with_it_they_are_kedas() -> None:
    fixed = named(render(*BUILTIN), "Deployment", "video-skyscraper-inference")
    assert fixed["spec"]["replicas"] == 2
    keda = "keda.enabled=true,keda.prometheusAddress=http://p:9090,inference.autoscaling.enabled=true"
    objects = render(*BUILTIN, "--set", keda)
    assert "replicas" not in named(objects, "Deployment", "video-skyscraper-inference")["spec"]
    scaled = named(objects, "ScaledObject", "video-skyscraper-inference")["spec"]
    assert scaled["minReplicaCount"] == 1
    assert scaled["triggers"][0]["metadata"]["threshold"] == "120"


def test_every_spot_pool_is_scaled_by_what_waits_for_it() -> None:
    options = ["--set", "burst.enabled=true,keda.enabled=true"]
    for number, (name, cores, most) in enumerate((("a", 4, 16), ("b", 2, 8))):
        pool = f"burst.pools[{number}]"
        sizes = f"{pool}.cores={cores},{pool}.drainSeconds=30,{pool}.minReplicas=0,{pool}.maxReplicas={most}"
        options += ["--set", f"{pool}.name={name},{pool}.cloud=generic,{sizes}"]
    objects = render(*BUILTIN, *options)
    for name in ("a", "b"):
        scaled = named(objects, "ScaledObject", f"video-skyscraper-spot-{name}")["spec"]
        assert scaled["scaleTargetRef"] == {"name": f"video-skyscraper-spot-{name}"}
        assert scaled["triggers"][0]["metadata"]["pool"] == name
    config = tomllib.loads(named(objects, "ConfigMap", "video-skyscraper-burst")["data"]["config.toml"])
    told = [(one["name"], one["core_seconds_per_machine"], one["most_machines"]) for one in config["pools"]]
    assert told == [("a", 120, 16), ("b", 60, 8)]


def test_a_changed_setting_restarts_only_its_own_service() -> None:
    def checksums(*options: str) -> dict[str, str]:
        return {
            one["metadata"]["name"]: one["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
            for one in render(*BUILTIN, *options)
            if one["kind"] in ("Deployment", "StatefulSet")
        }

    before, after = checksums(), checksums("--set", "decoder.config.commit_interval_seconds=1")
    assert {name for name in before if before[name] != after[name]} == {"video-skyscraper-decoder"}


def test_selectors_do_not_change_with_the_version() -> None:
    for one in render(*BUILTIN):
        if one["kind"] in ("Deployment", "StatefulSet"):
            assert set(one["spec"]["selector"]["matchLabels"]) == {
                "app.kubernetes.io/name",
                "app.kubernetes.io/instance",
                "app.kubernetes.io/component",
            }


def test_the_chart_carries_the_projects_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"appVersion: {project}\n" in (CHART / "Chart.yaml").read_text(encoding="utf-8")
