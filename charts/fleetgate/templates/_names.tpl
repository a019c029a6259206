{{/* The release's name, with the chart's unless it is in it. */}}
{{- define "fleetgate.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* What selects the pods of one part: (dict "root" $ "part" "gateway"). */}}
{{- define "fleetgate.selector" -}}
app.kubernetes.io/name: fleetgate
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "fleetgate.labels" -}}
{{ include "fleetgate.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* An image: (list $ .Values.gateway.image). */}}
{{- define "fleetgate.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 -}}
image: {{ printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end }}

{{- define "fleetgate.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .group }}
fsGroup: {{ .group }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fleetgate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ . }}
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods may run: the values of one part. */}}
{{- define "fleetgate.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* A variable out of the Secret: (dict "root" $ "name" "ADMIN" "key" "admin-token"). */}}
{{- define "fleetgate.secretEnv" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .root.Values.secret }}, key: {{ .key }}{{ if .optional }}, optional: true{{ end }}}}
{{- end }}

{{- define "fleetgate.hasRedis" -}}
{{- if or .Values.valkey.enabled .Values.redis.urlKey }}true{{ end }}
{{- end }}

{{/* The variable with the URL of Redis: (dict "root" $ "name" .. "user" .. "password" .. "urlKey" ..). */}}
{{- define "fleetgate.redisEnv" -}}
{{- if .root.Values.valkey.enabled }}
{{- include "fleetgate.secretEnv" (dict "root" .root "name" "REDIS_PASSWORD" "key" .password) }}
- name: {{ .name }}
  value: redis://{{ .user }}:$(REDIS_PASSWORD)@{{ include "fleetgate.name" .root }}-valkey:6379
{{- else }}
{{- include "fleetgate.secretEnv" (dict "root" .root "name" .name "key" (required "valkey is off: redis.urlKey, and redis.workerUrlKey for nodes, name the Secret's keys with the URLs" .urlKey)) }}
{{- end }}
{{- end }}

{{/* All pools with all their settings, as YAML. */}}
{{- define "fleetgate.pools" -}}
{{- $pools := dict }}
{{- range $name, $pool := .Values.nodes }}
{{- $_ := set $pools $name (mustMergeOverwrite (deepCopy $.Values.nodeDefaults) (default dict $pool)) }}
{{- end }}
{{- toYaml $pools }}
{{- end }}
