{{- /* How clients reach Kafka, the same for every mode, as YAML. */ -}}
{{- define "skyscraper.kafka" -}}
{{- $kafka := .Values.kafka -}}
{{- $security := $kafka.security -}}
{{- if eq $kafka.mode "builtin" }}
bootstrapServers: {{ include "skyscraper.fullname" . }}-kafka:9092
protocol: PLAINTEXT
{{- else if eq $kafka.mode "strimzi" }}
{{- if not $kafka.strimzi.cluster }}{{ fail "kafka.strimzi.cluster is empty: name the Kafka resource that Strimzi runs in this namespace" }}{{ end }}
bootstrapServers: {{ $kafka.bootstrapServers | default (printf "%s-kafka-bootstrap:9093" $kafka.strimzi.cluster) }}
caSecret: {{ printf "%s-cluster-ca-cert" $kafka.strimzi.cluster }}
caKey: ca.crt
{{- if eq $kafka.strimzi.authentication "tls" }}
protocol: SSL
clientCertificateSecret: {{ include "skyscraper.fullname" . }}
clientCertificateKey: user.crt
clientKeyKey: user.key
{{- else }}
protocol: SASL_SSL
saslMechanism: SCRAM-SHA-512
saslUsername: {{ include "skyscraper.fullname" . }}
passwordSecret: {{ include "skyscraper.fullname" . }}
passwordKey: password
{{- end }}
{{- else }}
bootstrapServers: {{ required "kafka.bootstrapServers is empty: name your brokers (host:port,host:port), or set kafka.mode to strimzi, or to builtin for a trial" $kafka.bootstrapServers }}
protocol: {{ $security.protocol }}
{{- if hasPrefix "SASL" $security.protocol }}
saslMechanism: {{ required "kafka.security.saslMechanism is empty: SASL needs PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512" $security.saslMechanism }}
passwordSecret: {{ required "kafka.security.existingSecret is empty: SASL needs a Secret with username and password" $security.existingSecret }}
usernameKey: {{ $security.usernameKey }}
passwordKey: {{ $security.passwordKey }}
{{- end }}
{{- if $security.caSecret }}
caSecret: {{ $security.caSecret }}
caKey: {{ $security.caKey }}
{{- end }}
{{- if $security.clientCertificateSecret }}
clientCertificateSecret: {{ $security.clientCertificateSecret }}
clientCertificateKey: tls.crt
clientKeyKey: tls.key
{{- end }}
{{- end }}
{{- end -}}

{{- /* The [kafka] table of a service's configuration, without secrets, as YAML. */ -}}
{{- define "skyscraper.kafkaConfig" -}}
{{- $kafka := include "skyscraper.kafka" . | fromYaml -}}
bootstrap_servers: {{ $kafka.bootstrapServers }}
security_protocol: {{ $kafka.protocol }}
{{- with $kafka.saslMechanism }}
sasl_mechanism: {{ . }}
{{- end }}
{{- with $kafka.saslUsername }}
sasl_username: {{ . }}
{{- end }}
{{- if $kafka.caSecret }}
ssl_ca_location: /etc/skyscraper/kafka-ca/ca.crt
{{- end }}
{{- if $kafka.clientCertificateSecret }}
ssl_certificate_location: /etc/skyscraper/kafka-client/tls.crt
ssl_key_location: /etc/skyscraper/kafka-client/tls.key
{{- end }}
{{- end -}}

{{- /* The secrets among it, as environment. dict: root, prefix (SKYSCRAPER_DECODER_) */ -}}
{{- define "skyscraper.kafkaSecretEnv" -}}
{{- $kafka := include "skyscraper.kafka" .root | fromYaml -}}
{{- if $kafka.usernameKey }}
- name: {{ .prefix }}KAFKA__SASL_USERNAME
  valueFrom: {secretKeyRef: {name: {{ $kafka.passwordSecret }}, key: {{ $kafka.usernameKey }}}}
{{- end }}
{{- if $kafka.passwordSecret }}
- name: {{ .prefix }}KAFKA__SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $kafka.passwordSecret }}, key: {{ $kafka.passwordKey }}}}
{{- end }}
{{- end -}}

{{- /* All of it, for the command line and for waiting. */ -}}
{{- define "skyscraper.kafkaCommandEnv" -}}
{{- $config := include "skyscraper.kafkaConfig" . | fromYaml -}}
- name: SKYSCRAPER_KAFKA
  value: {{ $config.bootstrap_servers | quote }}
{{- range $key, $value := $config }}
- name: SKYSCRAPER_CLI_KAFKA__{{ upper $key }}
  value: {{ $value | quote }}
{{- end }}
{{ include "skyscraper.kafkaSecretEnv" (dict "root" . "prefix" "SKYSCRAPER_CLI_") | trim }}
{{- end -}}

{{- define "skyscraper.kafkaMounts" -}}
{{- $kafka := include "skyscraper.kafka" . | fromYaml -}}
{{- if $kafka.caSecret }}
- {name: kafka-ca, mountPath: /etc/skyscraper/kafka-ca, readOnly: true}
{{- end }}
{{- if $kafka.clientCertificateSecret }}
- {name: kafka-client, mountPath: /etc/skyscraper/kafka-client, readOnly: true}
{{- end }}
{{- end -}}

{{- define "skyscraper.kafkaVolumes" -}}
{{- $kafka := include "skyscraper.kafka" . | fromYaml -}}
{{- if $kafka.caSecret }}
- name: kafka-ca
  secret:
    secretName: {{ $kafka.caSecret }}
    items: [{key: {{ $kafka.caKey }}, path: ca.crt}]
{{- end }}
{{- if $kafka.clientCertificateSecret }}
- name: kafka-client
  secret:
    secretName: {{ $kafka.clientCertificateSecret }}
    items:
      - {key: {{ $kafka.clientCertificateKey }}, path: tls.crt}
      - {key: {{ $kafka.clientKeyKey }}, path: tls.key}
{{- end }}
{{- end -}}
