{{- define "skyscraper.inferenceTarget" -}}
dns:///{{ include "skyscraper.fullname" . }}-inference.{{ .Release.Namespace }}.svc:{{ include "skyscraper.inferencePort" . }}
{{- end -}}

{{- define "skyscraper.tlsSecret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "skyscraper.fullname" .)) -}}
{{- end -}}

{{- define "skyscraper.clientTls" -}}
ca_path: /etc/skyscraper/tls/ca.crt
certificate_path: /etc/skyscraper/tls/tls.crt
key_path: /etc/skyscraper/tls/tls.key
{{- end -}}

{{- define "skyscraper.serverTls" -}}
certificate_path: /etc/skyscraper/tls/tls.crt
key_path: /etc/skyscraper/tls/tls.key
client_ca_path: /etc/skyscraper/tls/ca.crt
{{- end -}}

{{- define "skyscraper.tlsMounts" -}}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /etc/skyscraper/tls, readOnly: true}
{{- end }}
{{- end -}}

{{- define "skyscraper.tlsVolumes" -}}
{{- if .Values.tls.enabled }}
- name: tls
  secret: {secretName: {{ include "skyscraper.tlsSecret" . }}}
{{- end }}
{{- end -}}

{{- /*
A pool of inference servers: the on-prem one and each spot pool are this.
dict: root, component, values, grace, preStop; optional: nodeSelector and tolerations of a spot pool, replicas (none: KEDA's)
*/ -}}
{{- define "skyscraper.inferencePool" -}}
{{- $root := .root -}}
{{- $name := printf "%s-%s" (include "skyscraper.fullname" $root) .component -}}
{{- $labels := dict "root" $root "component" .component -}}
{{- $own := dict
  "host" "0.0.0.0"
  "port" (include "skyscraper.inferencePort" $root | int)
  "repository" "/repository"
  "instances" (int .values.cores)
-}}
{{- if $root.Values.tls.enabled -}}
{{- $_ := set $own "tls" (include "skyscraper.serverTls" $root | fromYaml) -}}
{{- end -}}
{{- $shared := include "skyscraper.serviceConfig" (dict "grace" .grace "preStop" .preStop) | fromYaml -}}
{{- $config := mustMergeOverwrite (deepCopy (.values.config | default dict)) $own $shared -}}
{{- $toml := toToml $config -}}
{{- $models := $root.Values.inference.models -}}
{{ include "skyscraper.configMap" (dict "root" $root "component" .component "name" $name "config" $toml) }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "skyscraper.labels" $labels | nindent 4 }}
spec:
  # Clients hold one connection to every server and balance requests themselves: gRPC's connections are long.
  clusterIP: None
  selector: {{- include "skyscraper.selectorLabels" $labels | nindent 4 }}
  ports:
    - {name: grpc, port: {{ include "skyscraper.inferencePort" $root }}, appProtocol: grpc}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "skyscraper.labels" $labels | nindent 4 }}
spec:
  {{- if hasKey . "replicas" }}
  replicas: {{ .replicas }}
  {{- end }}
  strategy:
    # A pool that is upgraded never serves less than before.
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels: {{- include "skyscraper.selectorLabels" $labels | nindent 6 }}
  template:
    metadata: {{- include "skyscraper.podMetadata" (dict "root" $root "component" .component "config" $toml) | nindent 6 }}
    spec:
      {{- $scheduling := dict "nodeSelector" (.nodeSelector | default .values.nodeSelector) "tolerations" (.tolerations | default .values.tolerations) "affinity" .values.affinity "priorityClassName" .values.priorityClassName }}
      {{- include "skyscraper.podCommon" (dict "root" $root "values" $scheduling) | nindent 6 }}
      {{- include "skyscraper.spread" $labels | nindent 6 }}
      terminationGracePeriodSeconds: {{ .grace }}
      {{- if ne $models.source "claim" }}
      initContainers:
        - name: models
          {{- if eq $models.source "image" }}
          image: {{ include "skyscraper.image" (dict "root" $root "name" "models" "override" $models.image) }}
          {{- else }}
          image: {{ required "inference.models.fetch.image is empty: name an image that fetches the models" $models.fetch.image }}
          command: {{ toJson $models.fetch.command }}
          {{- with $models.fetch.existingSecret }}
          envFrom: [{secretRef: {name: {{ . }}}}]
          {{- end }}
          {{- end }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          securityContext: {{- include "skyscraper.containerSecurity" $root | nindent 12 }}
          resources:
            requests: {cpu: 50m, memory: 64Mi}
            limits: {memory: 512Mi}
          volumeMounts:
            - {name: repository, mountPath: /repository}
            - {name: tmp, mountPath: /tmp}
      {{- end }}
      containers:
        {{- $resources := mustMergeOverwrite (dict "requests" (dict "cpu" (int .values.cores))) (deepCopy (.values.resources | default $root.Values.inference.resources)) }}
        {{- $mounts := printf "- {name: repository, mountPath: /repository, readOnly: true}\n%s" (include "skyscraper.tlsMounts" $root | trim) }}
        {{- include "skyscraper.container" (dict "root" $root "service" "inference" "values" (dict "resources" $resources) "mounts" $mounts
              "preStopSeconds" .preStop "image" .values.image
              "ports" (printf "- {name: grpc, containerPort: %s}" (include "skyscraper.inferencePort" $root))) | nindent 8 }}
      volumes:
        {{- include "skyscraper.commonVolumes" (dict "configMap" $name) | nindent 8 }}
        - name: repository
          {{- if eq $models.source "claim" }}
          persistentVolumeClaim: {claimName: {{ required "inference.models.existingClaim is empty" $models.existingClaim }}, readOnly: true}
          {{- else }}
          emptyDir: {}
          {{- end }}
        {{- include "skyscraper.tlsVolumes" $root | nindent 8 }}
{{- end -}}
