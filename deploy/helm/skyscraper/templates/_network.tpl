{{- define "skyscraper.policyHead" }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "skyscraper.fullname" .root }}-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "skyscraper.labels" (dict "root" .root "component" "network") | nindent 4 }}
{{- end }}

{{- define "skyscraper.release" }}
app.kubernetes.io/name: skyscraper
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "skyscraper.cidrs" }}
{{- range . }}
- ipBlock: {cidr: {{ . }}}
{{- end }}
{{- end }}

{{- define "skyscraper.ports" }}
{{- range . }}
- {protocol: TCP, port: {{ . }}}
{{- end }}
{{- end }}
