{{- define "model-registry.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for every suffix: a name has at most 63 characters. */}}
{{- define "model-registry.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "model-registry.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "model-registry.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Selector of a component: (dict "root" $ "component" "registry"). */}}
{{- define "model-registry.selector" -}}
app.kubernetes.io/name: {{ include "model-registry.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "model-registry.labels" -}}
{{ include "model-registry.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "model-registry.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "model-registry.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "model-registry.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "model-registry.secret" -}}
{{- default (include "model-registry.fullname" .) .Values.secrets.existingSecret }}
{{- end }}

{{/* Value of an environment variable: Helm would format a large number as 6.8e+10. */}}
{{- define "model-registry.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* Settings of Postgres, as data of a ConfigMap. */}}
{{- define "model-registry.postgresSettings" -}}
PSQL_HOSTNAME: {{ required "postgres.host must be set" .Values.postgres.host | quote }}
PSQL_PORT: {{ .Values.postgres.port | quote }}
PSQL_DATABASE: {{ .Values.postgres.database | quote }}
MR_USER_NAME: {{ .Values.postgres.user | quote }}
PSQL_SSLMODE: {{ .Values.postgres.sslMode | quote }}
{{- if .Values.postgres.caSecret.name }}
PSQL_CA_CERT: /etc/model-registry/postgres/ca.crt
{{- end }}
{{- end }}

{{- define "model-registry.tlsSettings" -}}
{{- if .Values.tls.enabled }}
ENABLE_HTTPS_MODE: "true"
SERVER_CERT: /etc/model-registry/tls/tls.crt
SERVER_PRIVATE_KEY: /etc/model-registry/tls/tls.key
{{- if .Values.tls.caKey }}
CA_CERT: /etc/model-registry/tls/{{ .Values.tls.caKey }}
{{- end }}
{{- end }}
{{- end }}

{{/* Names of the gateway inside and outside of the cluster; none if calls need credentials, as all names are allowed. */}}
{{- define "model-registry.hosts" -}}
{{- if eq (.Values.settings.AUTH_MODE | default "none") "none" }}
{{- $service := include "model-registry.fullname" . }}
{{- $hosts := list $service (printf "%s.%s" $service .Release.Namespace) "*.svc" "*.svc.cluster.local" }}
{{- if .Values.ingress.enabled }}{{ $hosts = concat $hosts .Values.ingress.hosts }}{{ end }}
{{- if .Values.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.httpRoute.hostnames }}{{ end }}
{{- join "," $hosts }}
{{- end }}
{{- end }}

{{/* Not empty where the gateway refuses clients without a certificate, such as the kubelet's own probes. */}}
{{- define "model-registry.gatewayDemandsCertificates" -}}
{{- range .Values.gateway.extraEnv }}{{ if eq .name "CLIENT_CA_CERT" }}true{{ end }}{{ end }}
{{- end }}

{{/* Settings by name. */}}
{{- define "model-registry.settings" -}}
{{- range $name, $value := . }}
{{ $name }}: {{ include "model-registry.text" $value | quote }}
{{- end }}
{{- end }}

{{/* Volumes and mounts of the Secrets' files: (dict "root" $ "tls" true "postgres" true "s3" true). */}}
{{- define "model-registry.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- with .root.Values }}
{{- if and $.tls .tls.enabled }}
- name: tls
  secret: {secretName: {{ required "tls.secretName must be set" .tls.secretName | quote }}, defaultMode: 0440}
{{- end }}
{{- if and $.postgres .postgres.caSecret.name }}
- name: postgres-ca
  secret:
    secretName: {{ .postgres.caSecret.name | quote }}
    items: [{key: {{ .postgres.caSecret.key | quote }}, path: ca.crt}]
{{- end }}
{{- if and $.s3 .s3.caSecret.name }}
- name: s3-ca
  secret:
    secretName: {{ .s3.caSecret.name | quote }}
    items: [{key: {{ .s3.caSecret.key | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "model-registry.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- with .root.Values }}
{{- if and $.tls .tls.enabled }}
- {name: tls, mountPath: /etc/model-registry/tls, readOnly: true}
{{- end }}
{{- if and $.postgres .postgres.caSecret.name }}
- {name: postgres-ca, mountPath: /etc/model-registry/postgres, readOnly: true}
{{- end }}
{{- if and $.s3 .s3.caSecret.name }}
- {name: s3-ca, mountPath: /etc/model-registry/s3, readOnly: true}
{{- end }}
{{- end }}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "model-registry.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
  {{- with .Values.podSecurityContext }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "model-registry.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Scheduling of a component's pods: (dict "root" $ "component" "registry" "values" .Values.registry). */}}
{{- define "model-registry.scheduling" -}}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- if hasKey . "labelSelector" }}
  - {{ toYaml . | nindent 4 | trim }}
  {{- else }}
  - {{ toYaml . | nindent 4 | trim }}
    # Count only the pods of this version, and not those that an upgrade replaces.
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "model-registry.selector" $ | nindent 8 }}
  {{- end }}
  {{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "model-registry.dnsEgress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{- define "model-registry.postgresEgress" -}}
- ports: [{port: {{ .Values.postgres.port }}, protocol: TCP}]
  {{- with .Values.networkPolicy.postgresTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
