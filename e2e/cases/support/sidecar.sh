# What the cases of `certlet sidecar` share. A case sources this file after lib.sh.
# shellcheck shell=bash

DIRECTORY=/var/run/secrets/certlet.io

# sidecar_begin: takes certlet's DaemonSet and CSIDriver out of the cluster, and makes the service account app, which may make requests.
# The case's namespace enforces the Pod Security Standard "restricted": its pods have no host, no root and no capability, as on Fargate.
sidecar_begin() {
	work=$(mktemp -d)
	trap sidecar_end EXIT
	helm uninstall certlet --namespace certlet --wait >/dev/null
	equal "the drivers of certlet in the cluster" "$(kubectl get csidrivers,daemonsets -A -o name | grep -c certlet || true)" 0
	kubectl label namespace "$NS" pod-security.kubernetes.io/enforce=restricted >/dev/null
	sidecar_account app
}
# sidecar_account NAME: a service account with the rights of a sidecar.
sidecar_account() {
	k get role sidecar >/dev/null 2>&1 || k create role sidecar --verb=create,get --resource=certificaterequests.cert-manager.io
	k get serviceaccount "$1" >/dev/null 2>&1 || k create serviceaccount "$1"
	k create rolebinding "sidecar-$1" --role=sidecar --serviceaccount="$NS:$1"
}
# sidecar_end: the other cases need the driver.
sidecar_end() {
	local status=$?
	rm -rf "$work"
	k delete pods,jobs --all --timeout=60s || true
	kubectl label namespace "$NS" pod-security.kubernetes.io/enforce-
	"$E2E/setup" || status=1
	return $status
}

# sidecar_pod NAME ATTRIBUTE=VALUE...: prints a pod with certlet as a native sidecar, as docs/sidecar.md has it. The attributes are
# annotations of the pod. These may be set before the call:
# - ACCOUNT: the service account. IMAGE, COMMAND (as in YAML): of the container main
# - SECURITY: the pod's fsGroup and more, as in YAML. DIRECTORY_IN_MAIN: where main has the directory
# - ENV: more variables of the sidecar. MAIN: more of main's security context. MOUNTS: more mounts of main. VOLUMES: more volumes. In YAML,
#   with a comma before each element
# - SIDECAR: one more field of the sidecar. EMPTY_DIR: fields of the shared volume. POD: more lines of the pod's spec
sidecar_pod() {
	local name=$1 attribute
	shift
	cat <<-YAML
		apiVersion: v1
		kind: Pod
		metadata:
		  name: $name
		  labels: { app: $name }
		  annotations:
	YAML
	annotations "    " "$@"
	echo "spec:"
	sidecar_spec | sed 's/^/  /'
}
# annotations INDENTATION ATTRIBUTE=VALUE...
annotations() {
	local indentation=$1 attribute
	shift
	for attribute in issuer-name="${ISSUER:-e2e-ca}" issuer-kind=ClusterIssuer "$@"; do
		printf '%scsi.certlet.io/%s: "%s"\n' "$indentation" "${attribute%%=*}" "${attribute#*=}"
	done
}
restricted="allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] }"
# sidecar_spec: prints the spec of such a pod.
sidecar_spec() {
	cat <<-YAML
		serviceAccountName: ${ACCOUNT:-app}
		terminationGracePeriodSeconds: 5
		securityContext: { runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, seccompProfile: { type: RuntimeDefault }, ${SECURITY-fsGroup: 10001} }
		initContainers:
		  - name: certlet
		    image: $CERTLET_IMAGE
		    imagePullPolicy: IfNotPresent
		    args: [sidecar]
		    restartPolicy: Always
		    env:
		      [
		        { name: CERTLET_DIRECTORY, value: $DIRECTORY },
		        { name: CERTLET_ATTRIBUTES_FILE, value: /etc/certlet/pod/annotations },
		        { name: CERTLET_TRUST_DOMAIN, value: "${TRUST_DOMAIN:-example.org}" },
		        { name: CERTLET_MIN_RENEWAL_INTERVAL, value: 1s }${ENV:-}
		      ]
		    startupProbe: { exec: { command: [certlet, health, --readiness] }, periodSeconds: 1, failureThreshold: 120 }
		    securityContext: { $restricted }
		    resources: { limits: { memory: 32Mi }, requests: { cpu: 5m, memory: 16Mi } }
		    volumeMounts:
		      - { name: certlet, mountPath: $DIRECTORY }
		      - { name: certlet-pod, mountPath: /etc/certlet/pod, readOnly: true }
		${SIDECAR:+    $SIDECAR}
		containers:
		  - name: main
		    image: ${IMAGE:-$POD_IMAGE}
		    imagePullPolicy: IfNotPresent
		    command: ${COMMAND:-[sleep, infinity]}
		    securityContext: { $restricted${MAIN:-} }
		    volumeMounts: [{ name: certlet, mountPath: ${DIRECTORY_IN_MAIN:-/tls}, readOnly: true }${MOUNTS:-}]
		volumes:
		  [
		    { name: certlet, emptyDir: { ${EMPTY_DIR-medium: Memory, sizeLimit: 4Mi} } },
		    { name: certlet-pod, downwardAPI: { items: [{ path: annotations, fieldRef: { fieldPath: metadata.annotations } }] } }${VOLUMES:-}
		  ]
		${POD:-}
	YAML
}

# certlet_in POD COMMAND...: a command of certlet in the pod's sidecar.
certlet_in() {
	local pod=$1
	shift
	k exec "$pod" -c certlet -- certlet "$@"
}
# sidecar_serial POD: the certificate's serial, as openssl prints it.
sidecar_serial() { k exec "$1" -c main -- openssl x509 -in /tls/tls.crt -noout -serial; }
# sidecar_pid POD: the process of the sidecar, in the cluster's own namespace.
sidecar_pid() {
	local container
	container=$(k get pod "$1" -o json | jq -r '.status.initContainerStatuses[] | select(.name == "certlet") | .containerID | sub("containerd://"; "")')
	ctr -n k8s.io task ls | awk -v id="$container" '$1 == id { print $2 }'
}
sidecar_restarts() { k get pod "$1" -o json | jq -r '.status.initContainerStatuses[] | select(.name == "certlet") | .restartCount'; }
# request_of POD QUERY: prints what jq reads of the CertificateRequests that the pod owns.
request_of() {
	k get certificaterequests -o json | jq -r --arg pod "$1" '.items[] | select(.metadata.ownerReferences[0].name == $pod) | '"$2"
}
# describes POD TEXT: whether `kubectl describe pod` shows the text anywhere but in the annotations.
describes() { k describe pod "$1" | sed '/^Annotations:/,/^Status:/d' | tr -s ' \n' ' ' | grep -qF -- "$2"; }
# ended_with POD: prints exit code and message of the sidecar's last end.
ended_with() {
	k get pod "$1" -o json |
		jq -r '.status.initContainerStatuses[] | select(.name == "certlet") | (.state.terminated // .lastState.terminated) | "\(.exitCode) \(.message)"'
}
