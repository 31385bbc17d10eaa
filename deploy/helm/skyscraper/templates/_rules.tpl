{{- /*
The rules of files/rules with this release's limits in the place of @words@. The files hold Prometheus' own templates
({{ "{{ $labels.stream }}" }}), which Helm must not touch.
*/ -}}
{{- define "skyscraper.rules" -}}
{{- $rules := .Values.monitoring.rules -}}
{{- $text := .Files.Get "files/rules/rules.yaml" -}}
{{- if .Values.burst.enabled -}}
{{- $text = printf "%s%s" $text (.Files.Get "files/rules/burst.yaml") -}}
{{- end -}}
{{- $words := dict
  "namespace" .Release.Namespace
  "runbooks" ($rules.runbookUrl | trimSuffix "/")
  "lag_seconds" (int64 $rules.lagSeconds)
  "headroom_seconds" (int64 $rules.headroomSeconds)
  "loss_predicted_seconds" (int64 $rules.lossPredictedSeconds)
  "publisher_silent_seconds" (int64 $rules.publisherSilentSeconds)
  "loader_lag_seconds" (int64 $rules.loaderLagSeconds)
  "dead_letters_per_hour" (int64 $rules.deadLettersPerHour)
  "rebalances_per_ten_minutes" (int64 $rules.rebalancesPerTenMinutes)
-}}
{{- range $word, $value := $words -}}
{{- $text = replace (printf "@%s@" $word) (toString $value) $text -}}
{{- end -}}
{{- $text | trim }}
{{- with $rules.qualityTargets }}
{{- $quality := $.Files.Get "files/rules/quality.yaml" | replace "@namespace@" $.Release.Namespace | replace "@runbooks@" ($rules.runbookUrl | trimSuffix "/") }}
  - name: skyscraper-quality
    rules:
    {{- range $pipeline, $target := . }}
      {{- $quality | replace "@pipeline@" $pipeline | replace "@target@" (toString $target) | trim | nindent 6 }}
    {{- end }}
{{- end }}
{{- end -}}
