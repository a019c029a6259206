{{/* The gateway's configuration as YAML: what the chart knows, and `config` over it. Secrets are named, never written. */}}
{{- define "fleetgate.config" -}}
{{- $config := dict
  "listen" (dict "host" "0.0.0.0" "port" 8080)
  "admin" (dict "host" "0.0.0.0" "port" 9091 "open_metrics" true)
  "response_secret" (dict "env" "RESPONSE_SECRET")
  "timeouts" (dict "shutdown_delay" 10)
}}
{{- $discovery := dict }}
{{- if include "fleetgate.hasRedis" . }}
{{- $_ := set $config "redis" (dict "url" (dict "env" "REDIS_URL")) }}
{{- $_ := set $config "access" (dict "stored" true) }}
{{- $_ := set $discovery "registrations" (dict "secret" (dict "env" "WORKER_SECRET")) }}
{{- else if .Values.nodes }}
{{- fail "nodes register in Redis: set valkey.enabled, or redis.urlKey and redis.workerUrlKey" }}
{{- end }}
{{- if .Values.fake.enabled }}
{{- $_ := set $discovery "dns" (list (dict "host" (printf "%s-fake" (include "fleetgate.name" .)) "port" 8000)) }}
{{- end }}
{{- if $discovery }}{{ $_ := set $config "discovery" $discovery }}{{ end }}
{{- $config = mustMergeOverwrite $config (deepCopy .Values.config) }}
{{- if not (or $config.tenants (and $config.access $config.access.stored) $config.no_auth) }}
{{- fail "nobody may call this gateway: list config.tenants, or give it Redis (valkey.enabled, redis.urlKey) for tenants made at run time" }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* What only a restart brings into force. Its hash stands on the pods: another change reloads, and cuts no stream. */}}
{{- define "fleetgate.readAtStart" -}}
{{- $config := include "fleetgate.config" . | fromYaml }}
{{- $access := default dict $config.access }}
{{- $timeouts := default dict $config.timeouts }}
{{- $models := list }}
{{- range $model := $config.models }}
{{- with pick $model "tokenizer" "routing_group" }}{{ $models = append $models (list $model.name .) }}{{ end }}
{{- end }}
{{- toJson (list
  (pick $config "listen" "admin" "workers" "log" "telemetry" "usage" "discovery" "response_secret")
  (hasKey $config "redis")
  (pick (default dict $config.redis) "cluster" "prefix")
  (pick $access "stored" "cached_keys" "outage" "audit_lines")
  (pick (default dict $config.requests) "max_headers")
  (pick (default dict $config.responses) "stored")
  (pick $timeouts "headers" "client_stall" "shutdown")
  $models) }}
{{- end }}

{{/* Seconds from SIGTERM to SIGKILL: the gateway's own drain, and some more. */}}
{{- define "fleetgate.graceSeconds" -}}
{{- $timeouts := (include "fleetgate.config" . | fromYaml).timeouts }}
{{- add (ceil (default 0 $timeouts.shutdown_delay)) (ceil (hasKey $timeouts "shutdown" | ternary $timeouts.shutdown 120)) 20 }}
{{- end }}
