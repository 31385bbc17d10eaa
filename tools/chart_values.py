"""The Helm chart's values as types: what may be set, and what it means. Defaults are in the chart's values.yaml.

`tools/write_chart.py` writes values.schema.json and the table of the chart's README from these classes and from the
services' own configurations, so that a misspelt setting of a service is refused by `helm install` already.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Values(BaseModel):
    """A group of values. Unknown names are refused."""

    model_config = ConfigDict(extra="forbid")


class ServiceSettings(BaseModel):
    """Stands for a service's own configuration; `service` says whose."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"x-service": ""})


def settings_of(service: str) -> Any:
    """A field that takes the settings of `service`, less those that the chart decides."""
    return Field(
        default=ServiceSettings(),
        description=f"Settings of {service} (docs/reference/configuration.md), less those that the chart sets itself.",
        json_schema_extra={"x-service": service},
    )


Labels = dict[str, str]
KubernetesObject = dict[str, Any]


class Image(Values):
    registry: str = Field(description="Prefix of every image's name, as deploy/images/build.sh names them.")
    tag: str = Field(description="Empty: the chart's appVersion.")
    pullPolicy: Literal["Always", "IfNotPresent", "Never"] = Field(description="As in Kubernetes.")
    pullSecrets: list[dict[str, str]] = Field(description="Secrets for the registry.")


class KafkaSecurity(Values):
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(description="As in Kafka's clients.")
    saslMechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(description="Needed with SASL.")
    existingSecret: str = Field(description="Secret with the SASL user and password.")
    usernameKey: str = Field(description="Key of the user in it.")
    passwordKey: str = Field(description="Key of the password in it.")
    caSecret: str = Field(description="Secret with the authority that signed the brokers.")
    caKey: str = Field(description="Key of it.")
    clientCertificateSecret: str = Field(description="Secret of type kubernetes.io/tls for mutual TLS.")


class Strimzi(Values):
    cluster: str = Field(description="Name of the Kafka resource, in the release's own namespace.")
    createTopics: bool = Field(description="Make KafkaTopic resources.")
    createUser: bool = Field(description="Make a KafkaUser with exactly the rights that the services need.")
    authentication: Literal["scram-sha-512", "tls"] = Field(description="How the user proves who it is.")
    replicas: int = Field(ge=1, description="Copies of every partition.")
    apiVersion: str = Field(description="kafka.strimzi.io/v1, or v1beta2 before Strimzi 0.49.")


class BuiltinKafka(Values):
    storage: str = Field(description="Size of its disk.")
    storageClass: str = Field(description="Empty: the cluster's default.")
    heapMegabytes: int = Field(ge=128, description="Java's heap.")
    nodePort: int = Field(ge=0, le=65535, description="Reachable from outside on this port of the nodes; 0: not.")
    nodeAddress: str = Field("", description="Address of a node as clients outside see it; needed with nodePort.")
    resources: KubernetesObject = Field(description="As in Kubernetes.")


class Kafka(Values):
    mode: Literal["external", "strimzi", "builtin"] = Field(
        description="external: your brokers; strimzi: topics and user as Strimzi's resources; builtin: one broker "
        "without copies or encryption, FOR TRIALS ONLY."
    )
    bootstrapServers: str = Field(description="host:port of some brokers; strimzi and builtin know theirs.")
    security: KafkaSecurity = Field(description="Of external brokers.")
    strimzi: Strimzi = Field(description="With mode strimzi.")
    builtin: BuiltinKafka = Field(description="With mode builtin.")


class Topics(Values):
    streams: int = Field(ge=1, description="Partitions: one for every camera there may ever be. It can only grow.")
    pipelines: list[str] = Field(min_length=1, description="Whose rows topics are made and whose rows are loaded.")
    retentionHours: float = Field(gt=0, description="The buffer: how long a segment may wait.")
    retentionGibPerStream: float = Field(ge=0.07, description="The buffer: how much a stream may hold.")
    replicationFactor: int = Field(ge=1, description="Copies of every partition (builtin: always 1).")


class Pool(Values):
    cores: float = Field(gt=0, description="The fixed on-prem pool: cores that decoders and inference share.")


class Scheduling(Values):
    nodeSelector: Labels | None = Field(None, description="As in Kubernetes; empty: the global one.")
    tolerations: list[KubernetesObject] | None = Field(None, description="As in Kubernetes; empty: the global ones.")
    affinity: KubernetesObject | None = Field(None, description="As in Kubernetes; empty: the global one.")
    priorityClassName: str | None = Field(None, description="As in Kubernetes; empty: the global one.")


class Publisher(Scheduling):
    name: str = Field(pattern="^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$", description="Its instance name.")
    follow: bool = Field(True, description="Capture the streams in sky.streams that name this publisher.")
    streams: list[Any] = Field(
        default=[], description="Streams as data, without credentials.", json_schema_extra={"x-service": "streams"}
    )
    config: ServiceSettings = settings_of("publisher")
    credentialsSecret: str = Field("", description="Secret whose credentials.toml holds passwords by host.")
    spill: str = Field("", description="Size of the disk for segments that wait while Kafka is away.")
    resources: KubernetesObject = Field({}, description="As in Kubernetes.")
    volumes: list[KubernetesObject] = Field([], description="More volumes, such as a folder of recordings.")
    volumeMounts: list[KubernetesObject] = Field([], description="Where they are mounted.")


class PublisherDefaults(Values):
    spill: str = Field(description="Size of the disk for segments that wait while Kafka is away.")
    storageClass: str = Field(description="Empty: the cluster's default.")
    resources: KubernetesObject = Field(description="As in Kubernetes.")


class DecoderScaling(Values):
    enabled: bool = Field(description="By KEDA, on its CPU; never below `replicas`.")
    maxReplicas: int = Field(ge=1, description="Most decoders; more than streams is of no use.")


class Decoder(Scheduling):
    replicas: int = Field(ge=1, description="Decoders; each owns its part of the streams.")
    config: ServiceSettings = settings_of("decoder")
    terminationGracePeriodSeconds: int = Field(ge=10, description="To finish and commit what is in work.")
    resources: KubernetesObject = Field(description="As in Kubernetes.")
    autoscaling: DecoderScaling = Field(description="More decoders.")


class FetchModels(Values):
    image: str = Field(description="An image with a tool that fetches models (aws, gsutil, az, oras …).")
    command: list[str] = Field(description="Its command; it writes to /repository.")
    existingSecret: str = Field(description="Secret with its credentials, given as environment.")


class Models(Values):
    source: Literal["image", "claim", "fetch"] = Field(
        description="image: an OCI image with the models in /models; claim: a volume; fetch: a command fetches them "
        "from an object store."
    )
    image: str = Field(description="Empty: skyscraper-models of the chart's registry.")
    existingClaim: str = Field(description="With claim: a volume that many pods may read, in Triton's layout.")
    fetch: FetchModels = Field(description="With fetch.")


class InferenceScaling(Values):
    enabled: bool = Field(description="By KEDA, on the core-seconds that wait in Kafka.")
    minReplicas: int = Field(ge=1, description="Fewest servers.")
    maxReplicas: int = Field(ge=1, description="Most servers.")
    drainSeconds: int = Field(ge=1, description="In how long the servers are to work off what waits.")
    assumedCoreSecondsPerSegment: float = Field(gt=0, description="A segment's work before any was measured.")


class Inference(Scheduling):
    replicas: int = Field(ge=0, description="Servers of the on-prem pool.")
    cores: int = Field(ge=1, description="CPUs of each: its requests, and how many batches it runs at once.")
    config: ServiceSettings = settings_of("inference")
    terminationGracePeriodSeconds: int = Field(ge=10, description="To finish what it holds.")
    resources: KubernetesObject = Field(description="As in Kubernetes; requests.cpu is `cores`.")
    models: Models = Field(description="Where the model repository comes from.")
    autoscaling: InferenceScaling = Field(description="More servers.")


class SpotPool(Scheduling):
    name: str = Field(pattern="^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$", description="Its name.")
    cloud: Literal["eks", "gke", "aks", "generic"] = Field(
        description="Preset of node labels, tolerations and notice; generic has none."
    )
    noticeSeconds: int | None = Field(None, ge=15, description="Notice before a node is taken; the cloud's by default.")
    gateway: KubernetesObject = Field(
        {}, description="The pool's settings at the gateway: usd_per_core_hour, price_query, cold_start_seconds …"
    )
    cores: int = Field(ge=1, description="CPUs of each server.")
    minReplicas: int = Field(ge=0, description="Fewest servers; without KEDA, the number of servers.")
    maxReplicas: int = Field(ge=1, description="Most servers.")
    drainSeconds: int = Field(60, ge=1, description="In how long the servers are to work off what waits.")
    config: ServiceSettings = settings_of("inference")
    resources: KubernetesObject = Field({}, description="As in Kubernetes; empty: as the on-prem pool's.")


class Burst(Scheduling):
    enabled: bool = Field(description="Spend dollars on spot servers when the pool is short.")
    replicas: int = Field(ge=1, description="Gateways; one writes the ledger, the others wait to take over.")
    config: ServiceSettings = settings_of("burst")
    terminationGracePeriodSeconds: int = Field(ge=10, description="To settle what is on its way.")
    resources: KubernetesObject = Field(description="As in Kubernetes.")
    pools: list[SpotPool] = Field(description="Spot pools.")


class Tuner(Scheduling):
    replicas: int = Field(ge=1, description="Tuners; one plans, the others share its table and wait.")
    config: ServiceSettings = settings_of("tuner")
    terminationGracePeriodSeconds: int = Field(ge=10, description="To hand over.")
    resources: KubernetesObject = Field(description="As in Kubernetes.")


class SecretProperty(Values):
    property: str = Field(description="pyiceberg's property, e.g. s3.secret-access-key.")
    secret: str = Field(description="Secret that holds it.")
    key: str = Field(description="Key in it.")


class Warehouse(Values):
    storage: str = Field(description="Size of the volume for tables and their SQLite catalog.")
    storageClass: str = Field(description="Empty: the cluster's default.")
    existingClaim: str = Field(description="A volume that is there already.")


class Loader(Scheduling):
    replicas: int = Field(ge=1, description="Loaders; more than one need a catalog that takes more than one writer.")
    config: ServiceSettings = settings_of("loader")
    terminationGracePeriodSeconds: int = Field(ge=10, description="To finish a commit.")
    secretProperties: list[SecretProperty] = Field(description="Properties of the catalog that are secrets.")
    warehouse: Warehouse = Field(description="Used where config.catalog.properties is empty.")
    resources: KubernetesObject = Field(description="As in Kubernetes.")


class FitJob(Values):
    name: str = Field(pattern="^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$", description="Its name.")
    pipeline: str = Field(description="Whose profile is learned.")
    trace: str = Field(description="Path of the trace (.npz) in the volume: see `skyscraper trace record`.")
    schedule: str = Field("", description="Cron; empty: fit.schedule.")
    options: list[str] = Field([], description="More options of `skyscraper fit`.")


class FitJobs(Values):
    schedule: str = Field(description="Cron.")
    tracesClaim: str = Field(description="Volume with traces.")
    jobs: list[FitJob] = Field(description="Profiles to learn anew.")
    resources: KubernetesObject = Field(description="As in Kubernetes.")


class CertManager(Values):
    issuerName: str = Field(description="Issuer of a certificate for the release.")
    issuerKind: Literal["Issuer", "ClusterIssuer"] = Field(description="Its kind.")


class Tls(Values):
    enabled: bool = Field(description="Mutual TLS between decoders, inference and the burst gateway.")
    existingSecret: str = Field(description="Secret with tls.crt, tls.key and ca.crt; else cert-manager makes one.")
    certManager: CertManager = Field(description="Where no Secret is named.")


class Keda(Values):
    enabled: bool = Field(description="Make ScaledObjects; without KEDA replicas are fixed.")
    prometheusAddress: str = Field(description="Prometheus that KEDA asks for the on-prem pool.")
    pollingSeconds: int = Field(ge=1, description="How often it asks.")
    stabilisationSeconds: int = Field(ge=0, description="How long it must be calm before fewer run.")


class PodMonitor(Values):
    enabled: bool = Field(description="For the Prometheus operator.")
    intervalSeconds: int = Field(ge=1, description="How often pods are scraped.")
    labels: Labels = Field(description="That your Prometheus selects by.")


class Rules(Values):
    enabled: bool = Field(description="A PrometheusRule for the Prometheus operator.")
    labels: Labels = Field(description="That your Prometheus selects by.")
    configMap: bool = Field(description="The same rules as a ConfigMap, for a Prometheus without the operator.")
    runbookUrl: str = Field(description="Where docs/runbooks is served; alerts link there.")
    lagSeconds: int = Field(ge=1, description="A stream that is further behind is late.")
    headroomSeconds: int = Field(ge=1, description="Least time until Kafka deletes unprocessed video.")
    lossPredictedSeconds: int = Field(ge=60, description="How far ahead loss is predicted.")
    publisherSilentSeconds: int = Field(ge=1, description="A camera silent for longer is away.")
    loaderLagSeconds: int = Field(ge=1, description="Rows that reach their table later are late.")
    deadLettersPerHour: int = Field(ge=0, description="More segments set aside in an hour are too many.")
    rebalancesPerTenMinutes: int = Field(ge=1, description="More moves of streams are too many.")
    qualityTargets: dict[str, float] = Field(description="Least mean quality by pipeline, in its own unit.")


class Dashboards(Values):
    enabled: bool = Field(description="ConfigMaps for Grafana's sidecar.")
    labels: Labels = Field(description="That the sidecar selects by.")


class Monitoring(Values):
    podMonitor: PodMonitor = Field(description="Scraping.")
    rules: Rules = Field(description="Alerts and recording rules.")
    dashboards: Dashboards = Field(description="Grafana.")


class Reach(Values):
    ports: list[int] = Field(description="TCP ports.")
    cidrs: list[str] = Field(description="Networks.")


class NetworkPolicies(Values):
    enabled: bool = Field(description="Deny everything but the flows of the design.")
    prometheusNamespace: str = Field(description="From where pods may be scraped.")
    kafka: Reach = Field(description="Your brokers.")
    cameras: Reach = Field(description="Your cameras.")
    lakehouse: Reach = Field(description="Your Iceberg catalog and object store.")


class DisruptionBudgets(Values):
    enabled: bool = Field(description="One pod of a kind at a time is taken from a node that is drained.")


class HelmTest(Values):
    pipeline: str = Field(description="Pipeline of the test's clip.")
    source: str = Field(description="The clip.")
    seconds: int = Field(ge=10, description="In how long its rows must come out.")


class ChartValues(Scheduling):
    """All values."""

    image: Image = Field(description="Images.")
    kafka: Kafka = Field(description="Kafka.")
    topics: Topics = Field(description="Topics.")
    pool: Pool = Field(description="The on-prem pool.")
    publishers: list[Publisher] = Field(description="Publishers, each with its streams.")
    publisherDefaults: PublisherDefaults = Field(description="For publishers that say nothing else.")
    decoder: Decoder = Field(description="Decoders.")
    inference: Inference = Field(description="The on-prem pool's model servers.")
    burst: Burst = Field(description="The burst gateway and its spot pools.")
    tuner: Tuner = Field(description="The tuner.")
    loader: Loader = Field(description="The loader.")
    fit: FitJobs = Field(description="The offline phase, on a schedule.")
    tls: Tls = Field(description="Encryption inside the release.")
    keda: Keda = Field(description="Scaling by KEDA.")
    monitoring: Monitoring = Field(description="Prometheus and Grafana.")
    networkPolicy: NetworkPolicies = Field(description="Network policies.")
    podDisruptionBudget: DisruptionBudgets = Field(description="Drains.")
    test: HelmTest = Field(description="`helm test`.")
    podAnnotations: Labels = Field(description="For every pod.")
    podLabels: Labels = Field(description="For every pod.")
    extraEnv: list[KubernetesObject] = Field(description="Environment of every service.")
    # Helm adds it to a chart that is part of another.
    global_: KubernetesObject | None = Field(None, alias="global", description="Helm's own.")
