# Helpers for cases. Each case sources this file first. NS is the case's own namespace.
# shellcheck shell=bash
set -Eeuo pipefail
trap 'echo "${BASH_SOURCE[0]##*/}:$LINENO: failed: $BASH_COMMAND" >&2' ERR
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/cluster/env.sh"
: "${POD_IMAGE:=localhost/pod:1}" # busybox, openssl and mtls-peer: see cluster/images
export POD_IMAGE

fail() {
	trap - ERR
	echo "$*" >&2
	exit 1
}

# Ends a case that cannot be run here.
skip() {
	trap - ERR
	echo "$*"
	exit 77
}

k() { kubectl -n "$NS" "$@"; }
ctl() { "$E2E_CLUSTER/ctl" "$@"; }

# equal WHAT ACTUAL EXPECTED
equal() { [ "$2" = "$3" ] || fail "$1: is '$2', should be '$3'"; }
# contains WHAT TEXT PART
contains() { [[ $2 == *"$3"* ]] || fail "$1: should contain '$3', is: $2"; }

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
	local until=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $until ] || fail "gave up waiting for: $*"
		sleep 0.2
	done
}

running() { k wait --for=condition=ready pod "$@" --timeout=60s >/dev/null; }
in_pod() {
	local pod=$1
	shift
	k exec "$pod" -- "$@"
}

# put POD FILE PATH: makes a file of a pod with the text of a file. It is an argument, because `kubectl exec -i` sometimes lost its input.
put() { in_pod "$1" sh -c 'echo "$0" >"$1"' "$(cat "$2")" "$3"; }

# Prints the names of the CertificateRequests in the case's namespace.
requests() { k get certificaterequests -o name; }
request_count() { requests | wc -l; }
has_requests() { [ "$(request_count)" = "$1" ]; }

# events_of POD: prints certlet's Events on the pod, one `REASON: MESSAGE` per line. Without the kubelet's Events, which repeat such
# texts.
events_of() {
	k get events --field-selector "involvedObject.name=$1" -o json |
		jq -r '.items[] | select(.reason | test("^(Certificate|Attribute|TrustSource)")) | .reason + ": " + .message'
}
events_say() { events_of "$1" | grep -q "$2"; }

# certificate_pod NAME ATTRIBUTE=VALUE...: prints a pod that has a certificate volume at /tls and sleeps. DRIVER,
# ISSUER (a ClusterIssuer) and SPEC (more lines of the pod's spec) may be set before the call. The grace period is not 0: with 0 the
# API server deletes the pod object at once, and a case could remove the driver before the kubelet has unmounted the volume.
certificate_pod() {
	local name=$1 driver=${DRIVER:-csi.certlet.io} prefix attribute
	shift
	prefix=csi.certlet.io
	if [ "$driver" = csi.cert-manager.io ]; then prefix=csi.cert-manager.io; fi
	cat <<-YAML
		apiVersion: v1
		kind: Pod
		metadata: { name: $name, labels: { app: $name } }
		spec:
		  terminationGracePeriodSeconds: 1
		  containers:
		    - name: main
		      image: $POD_IMAGE
		      imagePullPolicy: IfNotPresent
		      command: [sleep, infinity]
		      volumeMounts: [{ name: tls, mountPath: /tls, readOnly: true }]
		  volumes:
		    - name: tls
		      csi:
		        driver: $driver
		        readOnly: true
		        volumeAttributes:
		          $prefix/issuer-name: "${ISSUER:-e2e-ca}"
		          $prefix/issuer-kind: ClusterIssuer
	YAML
	for attribute; do
		if [[ ${attribute%%=*} != */* ]]; then attribute=$prefix/$attribute; fi
		printf '          %s: "%s"\n' "${attribute%%=*}" "${attribute#*=}"
	done
	if [ -n "${SPEC:-}" ]; then printf '%s\n' "$SPEC" | sed 's/^/  /'; fi
}

# x509 POD FILE OPTION...: prints what openssl x509 shows of a certificate file in a pod.
x509() {
	local pod=$1 file=$2
	shift 2
	in_pod "$pod" openssl x509 -in "$file" -noout "$@"
}
serial() { x509 "$1" /tls/tls.crt -serial; }

# live_pods ATTRIBUTE=VALUE...: starts three pods with certificates for one hour, and the pod `renewing` with these attributes.
live_pods() {
	local n
	for n in 1 2 3; do certificate_pod app-$n common-name=app-$n duration=1h | k apply -f -; done
	certificate_pod renewing common-name=renewing "$@" | k apply -f -
	running app-1 app-2 app-3 renewing
	live_files=$(files_of_live)
	live_mounts=$(mounts_of_live)
	live_stores=$(stores)
}
# still_live WHAT SECONDS: checks after WHAT that these pods have the same files and mounts as before, that `renewing` is renewed
# within SECONDS, and that a new pod gets a certificate and leaves nothing behind when it is deleted.
still_live() {
	local last
	wait_for 30 in_pod app-3 true # a kubelet that has just started does not know its pods yet
	equal "the files after $1" "$(files_of_live)" "$live_files"
	equal "the mounts after $1" "$(mounts_of_live)" "$live_mounts"
	equal "the drivers' own mounts after $1" "$(stores)" "$live_stores"
	last=$(serial renewing)
	renewed() { [ "$(serial renewing)" != "$last" ]; }
	wait_for "$2" renewed
	certificate_pod after common-name=after | k apply -f -
	running after
	k delete pod after --wait >/dev/null
	wait_for 20 has_requests 4
}
files_of_live() {
	local n
	for n in 1 2 3; do in_pod app-$n sha256sum /tls/tls.crt /tls/tls.key /tls/ca.crt; done
}
stores() { grep -c ' /[^ ]*/plugins/[^ ]*/data' /proc/mounts; }
# Counts only these pods, because other pods may still be ending.
mounts_of_live() {
	k get pods app-1 app-2 app-3 renewing -o 'jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}' | grep -cFf - /proc/mounts
}

# helm_install RELEASE DRIVER [HELM-FLAG...]: installs certlet with its chart in the case's own namespace; a second call upgrades it.
# RELEASE is also in the names of cluster-wide objects, so each case needs its own. With HELM_NO_WAIT set it does not wait for the
# DaemonSet. Certificates live only minutes in the cases, so minRenewalInterval is low.
helm_install() {
	local release=$1 driver=$2
	shift 2
	helm upgrade --install "$release" "$E2E/../charts/certlet" --namespace "$NS" \
		--set "fullnameOverride=$release,driverName=$driver,kubelet.rootDir=${KUBELET_ROOT:-/var/lib/kubelet},limits.minRenewalInterval=1s" \
		--set-string "image.repository=${CERTLET_IMAGE%:*},image.tag=${CERTLET_IMAGE##*:}" "$@" >/dev/null
	# Helm's --wait is not enough: maxUnavailable lets it succeed with no ready pod on a single node.
	if [ -z "${HELM_NO_WAIT:-}" ]; then k rollout status "daemonset/$release" --timeout=90s >/dev/null; fi
}
# helm_end RELEASE: ends the case's pods and then the driver. Without the driver the kubelet could not unmount the pods' volumes.
helm_end() {
	k delete pods --selector '!app.kubernetes.io/instance' --timeout=60s || true
	helm uninstall "$1" --namespace "$NS" --wait || true
}
