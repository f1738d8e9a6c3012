{{- define "imagehub.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "imagehub.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "imagehub.labels" -}}
{{ include "imagehub.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "imagehub.tag" -}}
{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What every pod of ours has in common. */ -}}
{{- define "imagehub.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "imagehub.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* The variables that are not secret. */ -}}
{{- define "imagehub.variables" -}}
IMAGEHUB_ENV: production
IMAGEHUB_ALLOWED_HOSTS: {{ .Values.host | quote }}
IMAGEHUB_TRUSTED_PROXIES: {{ .Values.trustedProxies | quote }}
IMAGEHUB_CONFIG: /etc/imagehub/config.yaml
WEB_CONCURRENCY: {{ .Values.web.processes | quote }}
{{- range $name, $value := .Values.environment }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "imagehub.config" -}}
config.yaml: |
  {{- .Values.config | default "{}" | nindent 2 }}
{{- end }}

{{- define "imagehub.environment" -}}
envFrom:
  - configMapRef: {name: {{ include "imagehub.fullname" . }}}
  - secretRef: {name: {{ .Values.existingSecret }}}
{{- end }}

{{- define "imagehub.mounts" -}}
- {name: state, mountPath: /var/lib/imagehub}
- {name: tmp, mountPath: /tmp}
- {name: config, mountPath: /etc/imagehub, readOnly: true}
{{- range $name := list "media" "models" "training" "scraping" }}
- {name: {{ $name }}, mountPath: /var/lib/imagehub/{{ $name }}}
{{- end }}
{{- end }}

{{- define "imagehub.volumes" -}}
- name: state
  emptyDir: {}
- name: tmp
  emptyDir: {}
- name: config
  configMap: {name: {{ include "imagehub.fullname" . }}-config}
{{- range $name := list "media" "models" "training" "scraping" }}
{{- $volume := index $.Values.storage $name }}
- name: {{ $name }}
  {{- if $volume.emptyDir }}
  emptyDir: {}
  {{- else }}
  persistentVolumeClaim: {claimName: {{ $volume.existingClaim | default (printf "%s-%s" (include "imagehub.fullname" $) $name) }}}
  {{- end }}
{{- end }}
{{- end }}
