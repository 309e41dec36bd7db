{{- define "coffer.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/name: coffer
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* Labels that select the pods of one component: (list . "operator"). */ -}}
{{- define "coffer.selector" -}}
app.kubernetes.io/name: coffer
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /* Full image name: (list . "operator" .Values.operator.image). */ -}}
{{- define "coffer.image" -}}
{{- $root := index . 0 -}}
{{- $own := index . 2 -}}
{{- $repository := $own.repository | default (printf "%s/%s" $root.Values.image.repository (index . 1)) -}}
{{- $tag := $own.tag | default $root.Values.image.tag | default $root.Chart.AppVersion -}}
{{ $repository }}:{{ $tag }}
{{- end }}

{{- define "coffer.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "coffer.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "coffer.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "coffer.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "coffer.mount" -}}
kubernetes/{{ .Values.cluster.name }}
{{- end }}

{{- define "coffer.address" -}}
https://coffer.{{ .Release.Namespace }}.svc:8200
{{- end }}

{{- /* Whether the server's volumes outlive its pod. */ -}}
{{- define "coffer.persistent" -}}
{{- $enabled := .Values.server.storage.embedded.persistence.enabled -}}
{{- if kindIs "bool" $enabled }}{{ $enabled }}{{ else }}{{ not .Values.autoInit.enabled }}{{ end -}}
{{- end }}

{{- /* The CofferConnection; a Job applies it, because its kind comes with this very chart. */ -}}
{{- define "coffer.connection" -}}
apiVersion: coffer.dev/v1alpha1
kind: CofferConnection
metadata:
  name: default
  labels: {{- include "coffer.labels" . | nindent 4 }}
spec:
  address: {{ include "coffer.address" . }}
  caBundleRef: {kind: ConfigMap, namespace: {{ .Release.Namespace | quote }}, name: coffer-ca, key: ca.crt}
  auth:
    mount: {{ include "coffer.mount" . }}
    audience: {{ .Values.connection.audience | quote }}
  cluster: {{ .Values.cluster.name | quote }}
  delegations: {{- toYaml .Values.connection.delegations | nindent 4 }}
{{- end }}
