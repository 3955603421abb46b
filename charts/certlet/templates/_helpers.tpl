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

{{- /* The flags that `certlet node` and `certlet sidecar` have in common. */}}
{{- define "certlet.sharedArgs" -}}
- --log-format={{ .Values.log.format }}
- --log-level={{ .Values.log.level }}
- --min-renewal-interval={{ .Values.limits.minRenewalInterval }}
- --shutdown-grace={{ .Values.shutdownGraceSeconds | int }}s
- --max-volume-size={{ .Values.store.maxVolumeSize }}
{{- range .Values.trust.sources }}
- --ca-source={{ . }}
{{- end }}
{{- range $entry, $sources := .Values.trust.named }}
{{- range $sources }}
- --trust-source={{ $entry }}={{ . }}
{{- end }}
{{- end }}
{{- range $domain, $sources := .Values.trust.federatedBundles }}
{{- range $sources }}
- --federated-bundle={{ $domain }}={{ . }}
{{- end }}
{{- end }}
{{- with .Values.trust.configMapNames }}
- --trust-configmap-names={{ join "," . }}
{{- end }}
- --trust-overlap={{ .Values.trust.overlap }}
{{- range .Values.trust.crls }}
- --crl={{ . }}
{{- end }}
{{- range .Values.trust.crlAllowedHosts }}
- --crl-allowed-hosts={{ . }}
{{- end }}
{{- if or .Values.trust.crls .Values.trust.crlAllowedHosts }}
- --crl-refresh-interval={{ .Values.trust.crlRefreshInterval }}
- --max-crl-size={{ .Values.trust.maxCrlSize }}
{{- end }}
{{- with .Values.certManager }}
{{- if .enabled }}
- --keep-requests={{ .keepRequests | int }}
{{- end }}
{{- if and .enabled .defaultIssuer.name }}
- --default-issuer-name={{ .defaultIssuer.name }}
- --default-issuer-kind={{ .defaultIssuer.kind }}
- --default-issuer-group={{ .defaultIssuer.group }}
{{- end }}
{{- end }}
{{- if ne .Values.clusterDomain "cluster.local" }}
- --cluster-domain={{ .Values.clusterDomain }}
{{- end }}
{{- with .Values.spiffe.trustDomain }}
- --trust-domain={{ . }}
{{- with $.Values.spiffe.idTemplate }}
- {{ printf "--spiffe-id-template=%s" . | quote }}
{{- end }}
{{- end }}
- --certificate-request-duration={{ .Values.spiffe.certificateRequestDuration }}
{{- if .Values.localSigner.enabled }}
- --allow-local-signer
{{- end }}
{{- end }}

{{- /* Whether the service accounts of pods make CertificateRequests. */}}
{{- define "certlet.podsRequest" -}}
{{- with .Values.certManager }}
{{- if and .enabled (or $.Values.inject.enabled (and $.Values.daemonSet.enabled .tokenRequest.enabled)) }}true{{ end }}
{{- end }}
{{- end }}

{{- /* Who reads the operator's sources of trust: the driver, and the service accounts of pods that run the sidecar. */}}
{{- define "certlet.trustReaders" -}}
{{- if .Values.daemonSet.enabled }}
- kind: ServiceAccount
  name: {{ include "certlet.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
{{- if .Values.inject.enabled }}
{{- if .Values.requesters.allNamespaces }}
- apiGroup: rbac.authorization.k8s.io
  kind: Group
  name: system:serviceaccounts
{{- else }}
{{- range .Values.requesters.namespaces }}
- apiGroup: rbac.authorization.k8s.io
  kind: Group
  name: system:serviceaccounts:{{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
