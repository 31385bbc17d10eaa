{{- /*
What a cloud calls its spot nodes, and the notice it gives before it takes one away. dict: pool
Notices: AWS two minutes; Google and Azure thirty seconds. All are best effort.
*/ -}}
{{- define "skyscraper.cloud" -}}
{{- $clouds := dict
  "eks" (dict "metadata" "aws" "noticeSeconds" 120 "nodeSelector" (dict "eks.amazonaws.com/capacityType" "SPOT") "tolerations" list)
  "gke" (dict "metadata" "google" "noticeSeconds" 30 "nodeSelector" (dict "cloud.google.com/gke-spot" "true")
    "tolerations" (list (dict "key" "cloud.google.com/gke-spot" "operator" "Equal" "value" "true" "effect" "NoSchedule")))
  "aks" (dict "metadata" "azure" "noticeSeconds" 30 "nodeSelector" (dict "kubernetes.azure.com/scalesetpriority" "spot")
    "tolerations" (list (dict "key" "kubernetes.azure.com/scalesetpriority" "operator" "Equal" "value" "spot" "effect" "NoSchedule")))
  "generic" (dict "metadata" "none" "noticeSeconds" 30 "nodeSelector" dict "tolerations" list)
-}}
{{- $preset := get $clouds .pool.cloud -}}
metadata: {{ $preset.metadata }}
noticeSeconds: {{ .pool.noticeSeconds | default $preset.noticeSeconds }}
nodeSelector: {{ merge dict (.pool.nodeSelector | default dict) $preset.nodeSelector | toJson }}
tolerations: {{ concat $preset.tolerations (.pool.tolerations | default list) | toJson }}
{{- end -}}
