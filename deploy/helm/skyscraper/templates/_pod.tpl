{{- /* Pod Security "restricted", and nothing of a service writes outside /tmp and its own volumes. */ -}}
{{- define "skyscraper.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
# A large spill or warehouse is not walked through at every start.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "skyscraper.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* What every pod has besides its containers. dict: root, values (may override scheduling), component */ -}}
{{- define "skyscraper.podCommon" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "skyscraper.fullname" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- include "skyscraper.podSecurity" . | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (.values.nodeSelector | default $root.Values.nodeSelector) }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (.values.tolerations | default $root.Values.tolerations) }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (.values.affinity | default $root.Values.affinity) }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (.values.priorityClassName | default $root.Values.priorityClassName) }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- /* dict: root, component, config (the rendered TOML) */ -}}
{{- define "skyscraper.podMetadata" -}}
annotations:
  checksum/config: {{ .config | sha256sum }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- include "skyscraper.labels" . | nindent 2 }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /*
One container of a service: its configuration, its probes, its place for scratch.
dict: root, service, values; optional: image, env, ports, mounts, preStopSeconds, startSeconds, instance
*/ -}}
{{- define "skyscraper.container" -}}
- name: {{ .service }}
  image: {{ include "skyscraper.image" (dict "root" .root "name" .service "override" .image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: [--config, /etc/skyscraper/config.toml]
  securityContext: {{- include "skyscraper.containerSecurity" . | nindent 4 }}
  env:
    - name: SKYSCRAPER_{{ upper .service }}_INSTANCE
      {{- if .instance }}
      value: {{ .instance | quote }}
      {{- else }}
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
      {{- end }}
    {{- with .env }}
    {{- . | trim | nindent 4 }}
    {{- end }}
    {{- with .root.Values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: metrics, containerPort: {{ include "skyscraper.metricsPort" . }}}
    {{- with .ports }}
    {{- . | trim | nindent 4 }}
    {{- end }}
  startupProbe:
    httpGet: {path: /readyz, port: metrics}
    periodSeconds: 2
    timeoutSeconds: 3
    # Kafka, state and models may take their time; a process that cannot start ends by itself.
    failureThreshold: {{ div (.startSeconds | default 300) 2 }}
  readinessProbe:
    httpGet: {path: /readyz, port: metrics}
    periodSeconds: 5
    timeoutSeconds: 3
  livenessProbe:
    httpGet: {path: /healthz, port: metrics}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  {{- with .preStopSeconds }}
  lifecycle:
    # Off the endpoints first: no new request comes while the old ones are finished.
    preStop: {sleep: {seconds: {{ . }}}}
  {{- end }}
  resources: {{- toYaml .values.resources | nindent 4 }}
  volumeMounts:
    - {name: config, mountPath: /etc/skyscraper/config.toml, subPath: config.toml, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- with .mounts }}
    {{- . | trim | nindent 4 }}
    {{- end }}
{{- end -}}

{{- /* dict: configMap */ -}}
{{- define "skyscraper.commonVolumes" -}}
- name: config
  configMap: {name: {{ .configMap }}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- end -}}

{{- /* Nothing starts before its topics are there. dict: root, service, topics */ -}}
{{- define "skyscraper.waitForTopics" -}}
- name: wait-for-topics
  image: {{ include "skyscraper.image" (dict "root" .root "name" .service) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [/opt/skyscraper/bin/python, -m, skyscraper.bus.wait_for_topics]
  args: {{ toJson .topics }}
  securityContext: {{- include "skyscraper.containerSecurity" . | nindent 4 }}
  env: {{- include "skyscraper.kafkaCommandEnv" .root | nindent 4 }}
  resources:
    requests: {cpu: 50m, memory: 64Mi}
    limits: {memory: 256Mi}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- include "skyscraper.kafkaMounts" .root | nindent 4 }}
{{- end -}}

{{- /* The settings that a pod decides, for every service. dict: grace, preStop */ -}}
{{- define "skyscraper.serviceConfig" -}}
log_format: json
# What is left of the grace period once the pod is off the endpoints, with room for the end itself.
shutdown_seconds: {{ max 1 (sub (int .grace) (add (int .preStop) 4)) }}
metrics:
  host: 0.0.0.0
  port: {{ include "skyscraper.metricsPort" . }}
{{- end -}}

{{- /* A ConfigMap with a service's TOML. dict: root, component, name, config */ -}}
{{- define "skyscraper.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "skyscraper.labels" . | nindent 4 }}
data:
  config.toml: |
    {{- .config | nindent 4 }}
{{- end -}}

{{- /* dict: root, component */ -}}
{{- define "skyscraper.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "skyscraper.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "skyscraper.labels" . | nindent 4 }}
spec:
  # One at a time, whatever the number of replicas: a node with the only one can still be drained.
  maxUnavailable: 1
  # A pod that never became ready must not hold a drain up.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "skyscraper.selectorLabels" . | nindent 6 }}
{{- end -}}

{{- /* dict: root, component, revision (the label that tells the pods of one revision) */ -}}
{{- define "skyscraper.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ include "skyscraper.selectorLabels" . | fromYaml | toJson }}}
    # Old pods that a rollout will end do not count.
    matchLabelKeys: [{{ .revision | default "controller-revision-hash" }}]
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: {matchLabels: {{ include "skyscraper.selectorLabels" . | fromYaml | toJson }}}
    matchLabelKeys: [{{ .revision | default "controller-revision-hash" }}]
{{- end -}}
