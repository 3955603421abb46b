{{- /* A value as a CEL literal. The elements of lists and maps are dyn, because CEL wants them to have one type. */}}
{{- define "certlet.cel" -}}
{{- if kindIs "map" . -}}
{ {{- $comma := "" }}{{ range $key, $value := . }}{{ $comma }}{{ toJson $key }}: dyn({{ include "certlet.cel" $value }}){{ $comma = ", " }}{{ end -}} }
{{- else if kindIs "slice" . -}}
[{{ $comma := "" }}{{ range . }}{{ $comma }}dyn({{ include "certlet.cel" . }}){{ $comma = ", " }}{{ end }}]
{{- else -}}
{{ toJson . }}
{{- end }}
{{- end }}

{{- /* Which namespaces the policies match. */}}
{{- define "certlet.inject.namespaces" -}}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      {{- if .Values.inject.namespaces }}
      operator: In
      values: {{ toJson .Values.inject.namespaces }}
      {{- else }}
      operator: NotIn
      values: {{ list .Release.Namespace "kube-system" | uniq | toJson }}
      {{- end }}
{{- end }}

{{- /* Which pods the policies match. */}}
{{- define "certlet.inject.pods" -}}
{{ include "certlet.inject.namespaces" . }}
resourceRules:
  # Only CREATE: containers and volumes of a pod that exists cannot change.
  - apiGroups: [""]
    apiVersions: [v1]
    operations: [CREATE]
    resources: [pods]
{{- end }}

{{- /* What the annotations of a pod say. The policies see pods before and after the injection. */}}
{{- define "certlet.inject.variables" -}}
- name: annotations
  expression: variables.pod.?metadata.?annotations.orValue({})
- name: mode
  expression: variables.annotations[?'certlet.io/inject'].orValue('false')
- name: mountPath
  expression: variables.annotations[?'certlet.io/inject-mount-path'].orValue('{{ .Values.inject.mountPath }}')
- name: unknown
  expression: >-
    variables.annotations.filter(key, key.startsWith('certlet.io/inject') && !(key in
    ['certlet.io/inject', 'certlet.io/inject-mount-path', 'certlet.io/inject-containers', 'certlet.io/inject-on-renewal']))
- name: initContainers
  expression: variables.pod.spec.?initContainers.orValue([])
# Whether the pod has the sidecar: by this policy or by hand.
- name: injected
  expression: >-
    variables.initContainers.exists(c, c.name == 'certlet' && c.?args[?0].orValue('') == 'sidecar' &&
    c.?volumeMounts.orValue([]).exists(mount, mount.name == 'certlet'))
# The containers that can have the certificate, the names of those that shall have it, and these.
- name: containers
  expression: variables.pod.spec.containers + variables.initContainers.filter(c, c.name != 'certlet')
- name: chosen
  expression: >-
    'certlet.io/inject-containers' in variables.annotations ?
    variables.annotations['certlet.io/inject-containers'].split(',').map(name, name.trim()) :
    variables.containers.map(c, string(c.name))
- name: targets
  expression: variables.containers.filter(c, c.name in variables.chosen)
- name: missing
  expression: variables.chosen.filter(name, !variables.containers.exists(c, c.name == name))
# Containers that have another volume at the path or below it.
- name: occupied
  expression: >-
    variables.targets.filter(c, c.?volumeMounts.orValue([]).exists(mount,
    mount.name != 'certlet' && (mount.mountPath + '/').startsWith(variables.mountPath + '/'))).map(c, string(c.name))
# The sidecar's user: that of the pod, else that of the first container that has one. It can read the key without fsGroup. -1: unknown.
- name: podUser
  expression: int(variables.pod.spec.?securityContext.?runAsUser.orValue(0))
- name: containerUsers
  expression: >-
    variables.targets.map(c, int(c.?securityContext.?runAsUser.orValue(0))).filter(user, user != 0)
- name: user
  expression: >-
    variables.podUser != 0 ? variables.podUser : variables.containerUsers.size() > 0 ? variables.containerUsers[0] :
    {{ .Values.inject.runAsUser | int | default -1 }}
- name: taken
  expression: >-
    variables.pod.spec.containers.filter(c, c.name == 'certlet').map(c, 'container certlet') +
    (variables.injected ? [] : variables.initContainers.filter(c, c.name == 'certlet').map(c, 'init container certlet')) +
    (variables.injected ? [] : variables.pod.spec.?volumes.orValue([]).filter(volume,
    volume.name in ['certlet', 'certlet-pod', 'certlet-token']).map(volume, 'volume ' + volume.name))
{{- end }}

{{- /* What is malformed. Each has the expression that must be true, and another that makes the message. A pod that breaks one is not
injected, so that the ValidatingAdmissionPolicy can refuse it by name, and not the API server by what the injection made of it. */}}
{{- define "certlet.inject.checks" -}}
- name: known
  expression: variables.unknown.size() == 0
  message: >-
    variables.unknown.map(key, key + ': "' + variables.annotations[key] + '"').join(', ') + ': unknown annotation; accepted:
    certlet.io/inject, certlet.io/inject-mount-path, certlet.io/inject-containers, certlet.io/inject-on-renewal'
- name: mode
  expression: variables.mode in ['true', 'once', 'false']
  message: >-
    'certlet.io/inject: "' + variables.mode + '" is not accepted; accepted: "true", "once", "false"'
- name: path
  expression: variables.mountPath.matches('^(/[A-Za-z0-9_@+=.-]+)+$') && !variables.mountPath.matches('/[.][.]?(/|$)')
  message: >-
    'certlet.io/inject-mount-path: "' + variables.mountPath + '" is not accepted; accepted: an absolute path such as /tls, of letters,
    digits and _@+=.-, without "." and ".." and without a slash at the end'
- name: renewal
  expression: variables.annotations[?'certlet.io/inject-on-renewal'].orValue('restart') == 'restart'
  message: >-
    'certlet.io/inject-on-renewal: "' + variables.annotations['certlet.io/inject-on-renewal'] + '" is not accepted; accepted: "restart"'
- name: once
  expression: variables.mode != 'once' || !('certlet.io/inject-on-renewal' in variables.annotations)
  message: >-
    'certlet.io/inject-on-renewal: "restart" is not accepted with certlet.io/inject: "once", which renews nothing; accepted: with "true"'
- name: os
  expression: >-
    variables.mode == 'false' || (variables.pod.spec.?os.?name.orValue('linux') != 'windows' &&
    variables.pod.spec.?nodeSelector[?'kubernetes.io/os'].orValue('linux') != 'windows')
  message: >-
    'certlet.io/inject: "' + variables.mode + '" is not accepted in a Windows pod; accepted: "false"'
- name: names
  expression: variables.mode == 'false' || variables.taken.size() == 0
  message: >-
    'certlet.io/inject: "' + variables.mode + '" is not accepted, because the pod has a ' + variables.taken.join(' and a ') +
    ' of its own; accepted: a pod in which no container is named certlet, and no volume certlet, certlet-pod or certlet-token'
- name: containers
  expression: variables.mode == 'false' || variables.missing.size() == 0
  message: >-
    'certlet.io/inject-containers: "' + variables.annotations['certlet.io/inject-containers'] + '": the pod has no container "' +
    variables.missing.join('" and no container "') + '"; accepted: a comma list of ' + variables.containers.map(c, string(c.name)).join(', ')
- name: unoccupied
  expression: variables.mode == 'false' || variables.occupied.size() == 0
  message: >-
    'certlet.io/inject-mount-path: "' + variables.mountPath + '" is not accepted, because the container ' +
    variables.occupied.join(' and the container ') + ' mounts another volume there or below; accepted: a path that no other mount has'
{{- end }}

{{- /* The sidecar's flags but those of annotations. Refuses values that name files which a pod does not have. */}}
{{- define "certlet.inject.args" -}}
{{- if .Values.pinnedCAs }}
{{- fail "pinnedCAs: cannot be used with inject.enabled, because pods do not have their files; install a second release for the injection" }}
{{- end }}
{{- $sources := concat (.Values.trust.sources | default list) (.Values.trust.crls | default list) }}
{{- range .Values.trust.named }}{{ $sources = concat $sources . }}{{ end }}
{{- range .Values.trust.federatedBundles }}{{ $sources = concat $sources . }}{{ end }}
{{- range $sources }}
{{- if regexMatch "^(spiffe-bundle:)?(file:)?/" . }}
{{- fail (printf "trust: %s cannot be used with inject.enabled, because pods do not have that file; install a second release for the injection" .) }}
{{- end }}
{{- end }}
{{- include "certlet.sharedArgs" . }}
{{- range .Values.inject.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
