{{- define "certlet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "certlet.fullname" -}}
{{- $name := include "certlet.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "certlet.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "certlet.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: is required when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "certlet.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "certlet.serviceAccount" . }}
{{- end }}

{{- define "certlet.selector" -}}
app.kubernetes.io/name: {{ include "certlet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Another name than the driver's, so that what selects the driver's pods does not select these. */}}
{{- define "certlet.approverSelector" -}}
app.kubernetes.io/name: {{ include "certlet.name" . | trunc 54 | trimSuffix "-" }}-approver
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "certlet.labels" -}}
{{ include "certlet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "certlet.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* The tokens that the kubelet sends with every publish. Empty if none is needed. */}}
{{- define "certlet.tokenRequests" -}}
{{- with .Values.certManager }}
{{- if and .enabled .tokenRequest.enabled }}
- audience: {{ .tokenRequest.audience | quote }}
  expirationSeconds: {{ .tokenRequest.expirationSeconds | int }}
{{- end }}
{{- end }}
{{- if .Values.pca.enabled }}
{{- range .Values.pca.tokenAudiences }}
- audience: {{ . | quote }}
  expirationSeconds: 3600
{{- end }}
{{- end }}
{{- end }}

{{- /* Whether the API server has ValidatingAdmissionPolicy and puts node names into service account tokens. */}}
{{- define "certlet.policies" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}true{{ end }}
{{- end }}
