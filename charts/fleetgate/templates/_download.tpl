{{/*
The Job that fills a pool's volume; the arguments of fleetgate.nodePod. A Job cannot be changed, so its name has a hash
of what it does: another image or source is another Job.
*/}}
{{- define "fleetgate.downloadJob" -}}
{{- $part := dict "root" .root "part" (printf "download-%s" .pool) }}
{{- $name := printf "%s-%s" (include "fleetgate.name" .root) .pool }}
{{- $does := printf "%s%s" (include "fleetgate.download" .) (include "fleetgate.image" (list .root .is.image)) }}
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}-download-{{ $does | sha256sum | trunc 8 }}
  labels: {{- include "fleetgate.labels" $part | nindent 4 }}
spec:
  # The download resumes by itself, and gives up after minutes without a byte: then it is begun again.
  backoffLimit: 20
  template:
    metadata:
      labels: {{- include "fleetgate.labels" $part | nindent 8 }}
    spec:
      restartPolicy: OnFailure
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext: {{- include "fleetgate.podSecurity" (dict "user" 10001 "group" 10001) | nindent 8 }}
      containers:
        - name: download
          {{- include "fleetgate.image" (list .root .is.image) | nindent 10 }}
          {{- include "fleetgate.download" . | nindent 10 }}
          resources:
            requests: {cpu: "1", memory: 2Gi}
            limits: {memory: 8Gi}
          securityContext: {{- include "fleetgate.containerSecurity" true | nindent 12 }}
          volumeMounts:
            - {name: models, mountPath: /models}
            - {name: tmp, mountPath: /tmp}
      volumes:
        - {name: models, persistentVolumeClaim: {claimName: {{ $name }}-models}}
        - {name: tmp, emptyDir: {}}
{{- end }}
