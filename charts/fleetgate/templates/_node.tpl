{{/*
The spec of a node's pod: (dict "root" $ "pool" NAME "is" POOL "role" "single" | "head" | "worker"). A node's machine
with the role worker registers nowhere, and stops after its head.
*/}}
{{- define "fleetgate.nodePod" -}}
{{- $is := .is }}{{ $full := printf "%s-%s" (include "fleetgate.name" .root) .pool }}
{{- $folder := printf "/models/%s" $is.profile }}
# The drain, the time between SIGTERM and SIGKILL, and some more.
terminationGracePeriodSeconds: {{ add $is.drainSeconds $is.stopSeconds 30 }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- include "fleetgate.podSecurity" (dict "user" 10001 "group" 10001) | nindent 2 }}
{{- with include "fleetgate.placement" $is }}{{ . | trim | nindent 0 }}{{ end }}
{{- if ne $is.models.storage "existing" }}
initContainers:
  - name: checkpoint
    {{- include "fleetgate.image" (list .root $is.image) | nindent 4 }}
    {{- if eq $is.models.storage "claim" }}
    # The Job downloads it.
    command: [sh, -ec, "until test -f {{ $folder }}/.complete; do echo waiting for the download; sleep 10; done"]
    {{- else }}
    {{- include "fleetgate.download" . | nindent 4 }}
    {{- end }}
    securityContext: {{- include "fleetgate.containerSecurity" true | nindent 6 }}
    volumeMounts:
      - {name: models, mountPath: /models{{ if eq $is.models.storage "claim" }}, readOnly: true{{ end }}}
      - {name: tmp, mountPath: /tmp}
{{- end }}
containers:
  - name: node
    {{- include "fleetgate.image" (list .root $is.image) | nindent 4 }}
    args:
      - launch
      - {{ $is.profile }}
      - --model-dir={{ $folder }}
      {{- if ne .role "single" }}
      - --role={{ .role }}
      {{- end }}
      {{- if eq .role "worker" }}
      - --head=$(LWS_LEADER_ADDRESS)
      {{- if eq $is.join "rank" }}
      - --rank=$(LWS_WORKER_INDEX)
      {{- end }}
      {{- else }}
      - --drain-seconds={{ $is.drainSeconds }}
      - --stop-seconds={{ $is.stopSeconds }}
      - --price-kind={{ $is.priceKind }}
      {{- with $is.spot }}
      - --spot={{ . }}
      {{- end }}
      {{- end }}
      {{- if or (eq .role "head") (and (eq .role "worker") (eq $is.join "ray")) }}
      - --address=$(POD_IP)
      {{- end }}
      {{- range $is.args }}
      - {{ . | quote }}
      {{- end }}
    env:
      - {name: FLEETGATE_WORKER_METRICS, value: "0.0.0.0:9109"}
      {{- if ne .role "single" }}
      - name: POD_IP
        valueFrom: {fieldRef: {fieldPath: status.podIP}}
      {{- end }}
      {{- if ne .role "worker" }}
      - name: POD_NAME
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      - {name: FLEETGATE_WORKER_NODE_ID, value: $(POD_NAME)}
      {{- if eq .role "head" }}
      - {name: FLEETGATE_WORKER_ADVERTISE, value: "http://$(LWS_LEADER_ADDRESS):8000"}
      {{- else }}
      - {name: FLEETGATE_WORKER_ADVERTISE, value: "http://$(POD_NAME).{{ $full }}:8000"}
      {{- end }}
      {{- include "fleetgate.secretEnv" (dict "root" .root "name" "FLEETGATE_WORKER_SECRET" "key" "worker-secret") | nindent 6 }}
      {{- include "fleetgate.redisEnv" (dict "root" .root "name" "FLEETGATE_WORKER_REDIS" "user" "fleetgate-worker" "password" "worker-redis-password" "urlKey" .root.Values.redis.workerUrlKey) | nindent 6 }}
      {{- end }}
      {{- with $is.env }}{{ toYaml . | nindent 6 }}{{ end }}
    {{- if eq .role "worker" }}
    lifecycle:
      preStop:
        # All machines of a node get SIGTERM at once; this one has to stay while the head drains.
        exec:
          command:
            - python3
            - -c
            - |
              import os, time, urllib.request
              refused = 0
              while refused < 3:
                  try:
                      urllib.request.urlopen(f"http://{os.environ['LWS_LEADER_ADDRESS']}:8000/health", timeout=5)
                      refused = 0
                  except OSError:
                      refused += 1
                  time.sleep(2)
    ports:
      - {name: gpu-metrics, containerPort: 9109}
    {{- else }}
    ports:
      - {name: http, containerPort: 8000}
      - {name: gpu-metrics, containerPort: 9109}
    # No liveness probe and no startup probe: the launcher restarts vLLM by itself, and loading takes half an hour.
    readinessProbe:
      httpGet: {path: /health, port: http}
      periodSeconds: 5
      timeoutSeconds: 3
    {{- end }}
    resources:
      requests: {memory: {{ $is.memory }}}
      limits:
        {{ $is.gpuResource }}: {{ $is.gpus | quote }}
        {{- with $is.extraResources }}{{ toYaml . | nindent 8 }}{{ end }}
    securityContext: {{- include "fleetgate.containerSecurity" $is.readOnlyRootFilesystem | nindent 6 }}
    volumeMounts:
      - {name: models, mountPath: /models, readOnly: true}
      - {name: home, mountPath: /var/lib/fleetgate}
      - {name: tmp, mountPath: /tmp}
      - {name: shm, mountPath: /dev/shm}
volumes:
  {{- if eq $is.models.storage "hostPath" }}
  # On each machine: chown 10001:10001.
  - {name: models, hostPath: {path: {{ $is.models.path }}, type: Directory}}
  {{- else if eq $is.models.storage "claim" }}
  - {name: models, persistentVolumeClaim: {claimName: {{ $full }}-models}}
  {{- else if eq $is.models.storage "existing" }}
  - {name: models, persistentVolumeClaim: {claimName: {{ required "models.claimName names the claim of models.storage: existing" $is.models.claimName }}, readOnly: true}}
  {{- end }}
  - {name: home, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
  - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ $is.sharedMemory }}}}
{{- end }}

{{/* The command that fills the models' folder, once, and its variables; with the arguments of fleetgate.nodePod. */}}
{{- define "fleetgate.download" -}}
{{- $folder := printf "/models/%s" .is.profile -}}
command:
  - sh
  - -ec
  - |
    test -f {{ $folder }}/.complete && exit 0
    fleetgate-worker download {{ .is.profile }} --model-dir {{ $folder }} --verify{{ with .is.models.from }} --from {{ . | quote }}{{ end }}
    touch {{ $folder }}/.complete
env:
  - {name: HOME, value: /tmp}
  {{- include "fleetgate.secretEnv" (dict "root" .root "name" "HF_TOKEN" "key" "hf-token" "optional" true) | nindent 2 }}
  {{- with .is.env }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
