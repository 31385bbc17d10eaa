{{- define "skyscraper.scalingBehavior" }}
advanced:
  horizontalPodAutoscalerConfig:
    behavior:
      scaleDown:
        # A calm minute is not the end of a rush, and a pod takes half a minute to warm up.
        stabilizationWindowSeconds: {{ .Values.keda.stabilisationSeconds }}
        policies: [{type: Percent, value: 50, periodSeconds: 60}]
      scaleUp:
        stabilizationWindowSeconds: 0
        policies: [{type: Percent, value: 100, periodSeconds: 15}, {type: Pods, value: 2, periodSeconds: 15}]
        selectPolicy: Max
{{- end }}
