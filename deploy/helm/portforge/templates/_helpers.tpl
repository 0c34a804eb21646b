{{/* Names, labels and images, said once. Every template of this chart uses these. */}}

{{/* Fixed: portforge finds its agents by this label. */}}
{{- define "portforge.name" -}}portforge{{- end }}

{{- define "portforge.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "portforge.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* ServiceAccounts: the names are fixed, RBAC and the admission policies name them. */}}
{{- define "portforge.agentServiceAccount" -}}portforge-agent{{- end }}
{{- define "portforge.readerServiceAccount" -}}portforge-reader{{- end }}
{{- define "portforge.testServiceAccount" -}}{{ include "portforge.fullname" . }}-test{{- end }}
{{- define "portforge.uninstallServiceAccount" -}}{{ include "portforge.fullname" . }}-uninstall{{- end }}

{{- define "portforge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "portforge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "portforge.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "portforge.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: portforge
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* {{ include "portforge.image" (dict "root" $ "image" .Values.image.agent) }} */}}
{{- define "portforge.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end }}
{{- end }}

{{/* No container here has more than it is given: {{ include "portforge.securityContext" (list "BPF") }} */}}
{{- define "portforge.securityContext" -}}
runAsUser: 0
runAsGroup: 0
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile:
  type: RuntimeDefault
capabilities:
  drop: [ALL]
  {{- with . }}
  add: {{ toJson . }}
  {{- end }}
{{- end }}

{{/* For the Jobs and Pods that only talk to the API server. */}}
{{- define "portforge.unprivilegedSecurityContext" -}}
runAsUser: 65532
runAsGroup: 65532
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
seccompProfile:
  type: RuntimeDefault
capabilities:
  drop: [ALL]
{{- end }}

{{/* What the loader and the agent have in common. */}}
{{- define "portforge.env" -}}
- name: PORTFORGE_NODE
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: PORTFORGE_POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: PORTFORGE_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: PORTFORGE_CLUSTER
  value: {{ .Values.clusterName | quote }}
- name: PORTFORGE_LOG_LEVEL
  value: {{ .Values.agent.logLevel | quote }}
{{- end }}

{{/* No mountPropagation: it asks for shared mounts, and both are mounted before any pod starts. */}}
{{- define "portforge.volumeMounts" -}}
- {name: bpffs, mountPath: /sys/fs/bpf}
- {name: state, mountPath: /var/lib/portforge/state}
- {name: run, mountPath: /run/lock}
- {name: tmp, mountPath: /tmp}
{{- end }}
