{{/* The resources of one run; call with (dict "root" . "run" NAME "key" KEY "settings" MAP). */}}
{{- define "calfin.run" -}}
apiVersion: kubernetes.dask.org/v1
kind: DaskJob
metadata:
  name: {{ .run }}
  labels: {{ include "calfin.runLabels" . | nindent 4 }}
spec:
  job:
    metadata:
      annotations: {{ include "calfin.stay" . | nindent 8 }}
    spec: {{ include "calfin.driverPod" . | nindent 6 }}
  cluster:
    spec:
      scheduler:
        metadata:
          annotations: {{ include "calfin.stay" . | nindent 12 }}
        spec: {{ include "calfin.schedulerPod" . | nindent 10 }}
        service:
          type: ClusterIP
          selector: {dask.org/cluster-name: {{ .run }}, dask.org/component: scheduler}
          ports:
            - {name: tcp-comm, protocol: TCP, port: 8786, targetPort: tcp-comm}
            - {name: http-dashboard, protocol: TCP, port: 8787, targetPort: http-dashboard}
      worker:
        replicas: {{ .root.Values.workers.cpu.replicas }}
        spec: {{ include "calfin.workerPod" (dict "root" .root "run" .run "group" .root.Values.workers.cpu "image" .root.Values.image "says" "CPU=1") | nindent 10 }}
{{- with .root.Values.workers.gpu }}
{{- if .replicas }}
---
apiVersion: kubernetes.dask.org/v1
kind: DaskWorkerGroup
metadata:
  name: {{ $.run }}-gpu
  labels: {{ include "calfin.runLabels" $ | nindent 4 }}
    dask.org/cluster-name: {{ $.run }}
    dask.org/component: workergroup
spec:
  cluster: {{ $.run }}
  worker:
    replicas: {{ .replicas }}
    spec: {{ include "calfin.workerPod" (dict "root" $.root "run" $.run "group" . "image" $.root.Values.gpuImage "says" "GPU=1") | nindent 6 }}
{{- end }}
{{- end }}
{{- with .root.Values.workers.cpu }}
{{- if .maximum }}
{{- if lt (int .maximum) (int .replicas) }}
{{- fail (printf "workers.cpu.maximum %v is below workers.cpu.replicas %v: give at least as many, or 0 for a fixed number" .maximum .replicas) }}
{{- end }}
---
apiVersion: kubernetes.dask.org/v1
kind: DaskAutoscaler
metadata:
  name: {{ $.run }}
  labels: {{ include "calfin.runLabels" $ | nindent 4 }}
spec:
  cluster: {{ $.run }}
  minimum: {{ .replicas }}
  maximum: {{ .maximum }}
{{- end }}
{{- end }}
{{- end }}

{{- define "calfin.runLabels" -}}
{{ include "calfin.podLabels" .root }}
calfin-cloud/run: {{ .key }}
{{- end }}

{{- define "calfin.driverPod" -}}
restartPolicy: Never
activeDeadlineSeconds: {{ int64 .root.Values.job.deadlineSeconds }}
serviceAccountName: {{ include "calfin.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 60
{{ include "calfin.podSecurity" .root }}
{{- include "calfin.steadyNodes" .root }}
initContainers:
  # The driver gives up after seconds; the scheduler's node may have to boot and fetch the image first.
  - name: await-scheduler
    {{- include "calfin.image" (list .root .root.Values.image) | nindent 4 }}
    {{- include "calfin.containerSecurity" .root | nindent 4 }}
    args:
      - python
      - -c
      - |
        import socket, time
        end = time.monotonic() + 1800
        while True:
            try:
                socket.create_connection(("{{ .run }}-scheduler", 8786), timeout=5).close()
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise SystemExit(f"the scheduler did not start within 30 minutes: {error}")
                time.sleep(2)
    resources:
      requests: {cpu: 50m, memory: 64Mi}
      limits: {memory: 64Mi}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
containers:
  - name: driver
    {{- include "calfin.image" (list .root .root.Values.image) | nindent 4 }}
    {{- include "calfin.containerSecurity" .root | nindent 4 }}
    args: {{ include "calfin.command" . | nindent 6 }}
    env: {{ include "calfin.env" (dict "root" .root "run" .run) | nindent 6 }}
    {{- include "calfin.secrets" .root | nindent 4 }}
    resources: {{ toYaml .root.Values.driver.resources | nindent 6 }}
    volumeMounts:
      {{- include "calfin.mounts" .root | nindent 6 }}
      {{- include "calfin.domainsMount" .root | nindent 6 }}
volumes:
  {{- include "calfin.volumes" (dict "root" .root) | nindent 2 }}
  {{- include "calfin.domainsVolume" .root | nindent 2 }}
{{- end }}

{{- define "calfin.command" -}}
{{- $map := .root.Values.map -}}
{{- $store := .settings.store | default $map.store -}}
- calfin
- {{ .settings.verb }}
{{- if eq .settings.verb "map" }}
- --catalog
- {{ $map.catalog | quote }}
- --domains
- {{ include "calfin.domainsFile" .root | quote }}
- --period
- {{ .settings.period | default $map.period | quote }}
- --store
- {{ $store | quote }}
{{- with $map.collections }}
- --collections
{{- range . }}
- {{ . | quote }}
{{- end }}
{{- end }}
{{- else }}
- {{ $store | quote }}
{{- end }}
{{- if .settings.retry }}
- --retry
{{- end }}
{{- with .settings.failAbove }}
- --fail-above
- {{ . | quote }}
{{- end }}
{{- with .settings.shards }}
- --shard
- SHARD_NUMBER/{{ . }}
{{- end }}
{{- range .settings.arguments | default (eq .settings.verb "map" | ternary $map.arguments list) }}
- {{ . | quote }}
{{- end }}
- --cluster
- $(DASK_SCHEDULER_ADDRESS)
- --verbose
{{- end }}

{{- define "calfin.schedulerPod" -}}
{{- $alike := (include "calfin.pods" .root | fromYaml) -}}
serviceAccountName: {{ include "calfin.serviceAccount" .root }}
{{ toYaml $alike.pod }}
{{ include "calfin.podSecurity" .root }}
{{- include "calfin.steadyNodes" .root }}
containers:
  - name: scheduler
    {{- include "calfin.image" (list .root .root.Values.image) | nindent 4 }}
    {{- include "calfin.containerSecurity" .root | nindent 4 }}
    {{- toYaml $alike.scheduler | nindent 4 }}
    env:
      {{- include "calfin.env" (dict "root" .root "run" .run) | nindent 6 }}
      {{- if .root.Values.workers.cpu.maximum }}
      # Over TLS the operator has no other way to ask how many workers are wanted, and which may go. This list takes the
      # place of Dask's own, which is all of it but the first.
      {{- $routes := list "scheduler.api" "scheduler.prometheus" "scheduler.info" "scheduler.json" "health" "proxy" "statics" }}
      - name: DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES
        value: {{ printf "distributed.http.%s" (join " distributed.http." $routes) | splitList " " | toJson | quote }}
      {{- end }}
    resources: {{ toYaml .root.Values.scheduler.resources | nindent 6 }}
    volumeMounts: {{ include "calfin.mounts" .root | nindent 6 }}
volumes: {{ include "calfin.volumes" (dict "root" .root) | nindent 2 }}
{{- end }}

{{- define "calfin.workerPod" -}}
{{- $alike := (include "calfin.pods" .root | fromYaml) -}}
serviceAccountName: {{ include "calfin.serviceAccount" .root }}
{{ toYaml $alike.pod }}
terminationGracePeriodSeconds: 60
{{ include "calfin.podSecurity" .root }}
{{- with .group.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .group.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: worker
    {{- include "calfin.image" (list .root .image) | nindent 4 }}
    {{- include "calfin.containerSecurity" .root | nindent 4 }}
    # calfin places the network by what workers say of themselves. Without --memory-limit Dask would give this one
    # thread the share of the pod's memory that one core is of the node's.
    {{- $says := list "--resources" .says "--memory-limit" .group.resources.limits.memory }}
    {{- $worker := merge (dict "args" (concat $alike.worker.args $says)) $alike.worker }}
    {{- toYaml $worker | nindent 4 }}
    env: {{ include "calfin.env" (dict "root" .root "run" .run "more" .group.env) | nindent 6 }}
    {{- include "calfin.secrets" .root | nindent 4 }}
    resources: {{ toYaml .group.resources | nindent 6 }}
    volumeMounts: {{ include "calfin.mounts" .root | nindent 6 }}
volumes: {{ include "calfin.volumes" (dict "root" .root "scratch" .group.scratch) | nindent 2 }}
{{- end }}
