{{- define "skyscraper.fullname" -}}
{{- if contains "skyscraper" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-skyscraper" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What a selector may hold: it can never be changed. dict: root, component */ -}}
{{- define "skyscraper.selectorLabels" -}}
app.kubernetes.io/name: skyscraper
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* dict: root, component */ -}}
{{- define "skyscraper.labels" -}}
{{ include "skyscraper.selectorLabels" . }}
app.kubernetes.io/part-of: skyscraper
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- /* dict: root, name (as deploy/images/build.sh names it), override */ -}}
{{- define "skyscraper.image" -}}
{{- $image := .root.Values.image -}}
{{- .override | default (printf "%s/skyscraper-%s:%s" $image.registry .name ($image.tag | default .root.Chart.AppVersion)) -}}
{{- end -}}

{{- /* The port of /metrics, /healthz and /readyz: the one OpenTelemetry gives to Prometheus exporters. */ -}}
{{- define "skyscraper.metricsPort" -}}9464{{- end -}}
{{- define "skyscraper.inferencePort" -}}8001{{- end -}}
{{- define "skyscraper.burstPort" -}}8100{{- end -}}
