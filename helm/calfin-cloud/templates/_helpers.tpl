{{/* Names leave room for what is added: -RUN (15), a CronJob's -MINUTES (11), -SHARD (4) and -scheduler (10), in 63.
Of a longer name a digest is kept, so that two releases whose names begin alike do not share their resources. */}}
{{- define "calfin.name" -}}
{{- if not (regexMatch "^[a-z][a-z0-9-]*$" .Release.Name) }}
{{- fail (printf "the release name %s: a name that begins with a letter and has no dot is needed, since Services are named by it" .Release.Name) }}
{{- end }}
{{- if gt (len .Release.Name) 21 -}}
{{ printf "%s-%s" (.Release.Name | trunc 14 | trimSuffix "-") (sha256sum .Release.Name | trunc 6) }}
{{- else -}}
{{ .Release.Name }}
{{- end }}
{{- end }}

{{- define "calfin.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "calfin.podLabels" . }}
{{- end }}

{{/* The operator copies the labels of a run to all its pods; NetworkPolicy and PodDisruptionBudget find them by these. */}}
{{- define "calfin.podLabels" -}}
{{ include "calfin.selector" . }}
{{- with .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "calfin.selector" -}}
app.kubernetes.io/name: calfin-cloud
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "calfin.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "calfin.name" .) }}
{{- end }}

{{- define "calfin.domainsConfigMap" -}}
{{ .Values.domains.configMap | default (printf "%s-domains" (include "calfin.name" .)) }}
{{- end }}

{{/* Where driver and `helm test` find the glaciers. */}}
{{- define "calfin.domainsFile" -}}
{{ .Values.domains.address | default "/etc/calfin/domains.geojson" }}
{{- end }}

{{- define "calfin.domainsVolume" -}}
{{- if not .Values.domains.address }}
- name: domains
  configMap: {name: {{ include "calfin.domainsConfigMap" . }}}
{{- end }}
{{- end }}

{{- define "calfin.domainsMount" -}}
{{- if not .Values.domains.address }}
- {name: domains, mountPath: /etc/calfin, readOnly: true}
{{- end }}
{{- end }}

{{/* Image of a container; call with (list . .Values.image). */}}
{{- define "calfin.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 -}}
image: {{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end }}

{{/* What pods have in common with those of `clusters.kubernetes`. */}}
{{- define "calfin.pods" -}}
{{ .Files.Get "files/pods.yaml" }}
{{- end }}

{{- define "calfin.podSecurity" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- $ids := dict "runAsUser" .Values.user.id "runAsGroup" .Values.user.group "fsGroup" .Values.user.group }}
securityContext: {{ merge $ids (include "calfin.pods" . | fromYaml).podSecurity | toYaml | nindent 2 }}
{{- end }}

{{- define "calfin.containerSecurity" -}}
securityContext: {{ (include "calfin.pods" . | fromYaml).containerSecurity | toYaml | nindent 2 }}
{{- end }}

{{/* On-demand nodes of scheduler, driver and starter. */}}
{{- define "calfin.steadyNodes" -}}
{{- with .Values.scheduler.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduler.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduler.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Autoscalers of nodes leave pods with these words alone. */}}
{{- define "calfin.stay" -}}
cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
karpenter.sh/do-not-disrupt: "true"
{{- end }}

{{- define "calfin.volumes" -}}
- name: tmp
  emptyDir: {{ with .scratch }}{sizeLimit: {{ . }}}{{ else }}{}{{ end }}
{{- with .root.Values.tls.secretName }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- end }}

{{- define "calfin.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.tls.secretName }}
- {name: tls, mountPath: /etc/dask-tls, readOnly: true}
{{- end }}
{{- end }}

{{/* Environment of scheduler, driver and workers; call with (dict "root" . "run" NAME "more" MAP). */}}
{{- define "calfin.env" -}}
- {name: CALFIN_RUN, value: {{ .run | quote }}}
- name: DASK_SCHEDULER_ADDRESS
  value: {{ if .root.Values.tls.secretName }}tls{{ else }}tcp{{ end }}://{{ .run }}-scheduler:8786
{{- include "calfin.tlsEnv" .root }}
{{- include "calfin.variables" (merge (dict) (.more | default dict) .root.Values.env) }}
{{- end }}

{{- define "calfin.tlsEnv" -}}
{{- if .Values.tls.secretName }}
- {name: DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME, value: tls}
- {name: DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION, value: "true"}
- {name: DASK_DISTRIBUTED__COMM__TLS__CA_FILE, value: /etc/dask-tls/ca.crt}
{{- range list "SCHEDULER" "WORKER" "CLIENT" }}
- {name: DASK_DISTRIBUTED__COMM__TLS__{{ . }}__CERT, value: /etc/dask-tls/tls.crt}
- {name: DASK_DISTRIBUTED__COMM__TLS__{{ . }}__KEY, value: /etc/dask-tls/tls.key}
{{- end }}
{{- end }}
{{- end }}

{{- define "calfin.variables" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "calfin.secrets" -}}
{{- with .Values.secrets }}
envFrom:
{{- range . }}
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}
{{- end }}
