{{- define "skyscraper.topicsPod" -}}
{{- include "skyscraper.podCommon" (dict "root" .root "values" dict) }}
restartPolicy: OnFailure
{{- if .wait }}
initContainers:
  # The operator makes the topics; this Job only registers the pipelines.
  {{- include "skyscraper.waitForTopics" (dict "root" .root "service" "cli" "topics" (list "sky.profiles" "sky.segments")) | nindent 2 }}
{{- end }}
containers:
  - name: topics
    image: {{ include "skyscraper.image" (dict "root" .root "name" "cli") }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{ toJson .arguments }}
    securityContext: {{- include "skyscraper.containerSecurity" .root | nindent 6 }}
    env: {{- include "skyscraper.kafkaCommandEnv" .root | nindent 6 }}
    resources:
      requests: {cpu: 100m, memory: 256Mi}
      limits: {memory: 1Gi}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- include "skyscraper.kafkaMounts" .root | nindent 6 }}
volumes:
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
  {{- include "skyscraper.kafkaVolumes" .root | nindent 2 }}
{{- end -}}
