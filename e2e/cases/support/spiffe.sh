# What the cases of the SPIFFE driver share: certlet in place of csi-driver-spiffe, under its name, with certlet's approver and an
# issuer of its own. The trust domain is foo.bar. A case sources this file after lib.sh.
# shellcheck shell=bash

export DRIVER=spiffe.csi.cert-manager.io
# shellcheck disable=SC2034 # for cases
RELEASE=spiffe
work=$(mktemp -d)

# spiffe_id ACCOUNT: prints the SPIFFE ID of a service account of the case's namespace.
spiffe_id() { echo "spiffe://foo.bar/ns/$NS/sa/$1"; }

# root_ca NAME: makes a CA. Its certificate is $work/NAME.crt.
root_ca() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" \
		-keyout "$work/$1.key" -out "$work/$1.crt" 2>/dev/null
}
# ca_issuer NAME: makes a CA, and a ClusterIssuer of that name that signs with it.
ca_issuer() {
	root_ca "$1"
	kubectl -n cert-manager create secret tls "$1" --cert="$work/$1.crt" --key="$work/$1.key"
	kubectl apply -f - <<-YAML
		apiVersion: cert-manager.io/v1
		kind: ClusterIssuer
		metadata: { name: $1 }
		spec: { ca: { secretName: $1 } }
	YAML
	issuers+=("$1")
	kubectl wait --for=condition=ready "clusterissuer/$1" --timeout=30s
}
issuers=()

# spiffe_begin [HELM-FLAG...]: makes the issuer spiffe-ca, ends cert-manager's own approver, and installs certlet with
# values-drop-in-spiffe.yaml. Sets the trap that removes all of this.
spiffe_begin() {
	trap spiffe_end EXIT
	ca_issuer spiffe-ca
	k create configmap roots --from-file="ca.crt=$work/spiffe-ca.crt"
	ctl restart cert-manager+--approve=false
	spiffe_install "$@"
}
# spiffe_install [HELM-FLAG...]: installs certlet, or upgrades it to other settings. The certlet that all cases share makes requests as
# its own account, so the policy that binds requests to the requester's pod has to exempt it.
spiffe_install() {
	helm_install $RELEASE "$DRIVER" --values "$E2E/../charts/certlet/values-drop-in-spiffe.yaml" \
		--set spiffe.trustDomain=foo.bar,certManager.defaultIssuer.name=spiffe-ca,approver.trustDomain=foo.bar,approver.issuer.name=spiffe-ca \
		--set "podOwner.exemptServiceAccounts={system:serviceaccount:certlet:certlet},trust.sources={configmap:$NS/roots/ca.crt}" "$@"
	k rollout status deployment/$RELEASE-approver --timeout=90s >/dev/null
}
spiffe_end() {
	local status=$? issuer
	helm_end $RELEASE
	ctl restart cert-manager
	for issuer in "${issuers[@]}"; do
		kubectl delete clusterissuer "$issuer" --ignore-not-found
		kubectl -n cert-manager delete secret "$issuer" --ignore-not-found
	done
	rm -rf "$work"
	return $status
}

# account NAME...: creates service accounts that may create CertificateRequests, and do nothing else with them.
account() {
	local name
	k get role requester >/dev/null 2>&1 || k create role requester --verb=create --resource=certificaterequests.cert-manager.io
	for name; do
		k create serviceaccount "$name"
		k create rolebinding "$name" --role=requester --serviceaccount="$NS:$name"
	done
}

# spiffe_pod NAME ACCOUNT [ATTRIBUTE=VALUE...]: prints a pod with a volume of the driver at /tls. SPEC as for certificate_pod.
spiffe_pod() {
	local name=$1 account=$2 attribute
	shift 2
	cat <<-YAML
		apiVersion: v1
		kind: Pod
		metadata: { name: $name, labels: { app: $name } }
		spec:
		  serviceAccountName: $account
		  terminationGracePeriodSeconds: 1
		  containers:
		    - name: main
		      image: $POD_IMAGE
		      imagePullPolicy: IfNotPresent
		      command: [sleep, infinity]
		      volumeMounts: [{ name: tls, mountPath: /tls }]
		  volumes:
		    - name: tls
		      csi:
		        driver: $DRIVER
		        readOnly: true
	YAML
	if [ $# -gt 0 ]; then echo "        volumeAttributes:"; fi
	for attribute; do printf '          spiffe.csi.cert-manager.io/%s: "%s"\n' "${attribute%%=*}" "${attribute#*=}"; done
	if [ -n "${SPEC:-}" ]; then printf '%s\n' "$SPEC" | sed 's/^/  /'; fi
}

# signed_by POD CA: whether the pod's certificate was signed by $work/CA.crt.
signed_by() {
	in_pod "$1" cat /tls/tls.crt >"$work/leaf.crt"
	openssl verify -CAfile "$work/$2.crt" -untrusted "$work/leaf.crt" "$work/leaf.crt" >/dev/null 2>&1
}
# has_identity POD ACCOUNT: checks the files of the pod (FILES: which there are), and that its certificate is the identity of the account
# and nothing besides.
has_identity() {
	local text
	equal "the files of $1" "$(in_pod "$1" ls /tls | sort | xargs)" "${FILES:-ca.crt tls.crt tls.key}"
	equal "the names of $1" "$(x509 "$1" /tls/tls.crt -ext subjectAltName)" "X509v3 Subject Alternative Name: critical
    URI:$(spiffe_id "$2")"
	equal "the subject of $1" "$(x509 "$1" /tls/tls.crt -subject)" "subject="
	text=$(x509 "$1" /tls/tls.crt -text)
	contains "the usages of $1" "$text" "Digital Signature, Key Encipherment"
	contains "the extended usages of $1" "$text" "TLS Web Server Authentication, TLS Web Client Authentication"
	contains "the key of $1" "$text" "NIST CURVE: P-256"
	contains "the key's encoding of $1" "$(in_pod "$1" head -n 1 /tls/tls.key)" "BEGIN PRIVATE KEY"
	equal "the key's public half of $1" "$(in_pod "$1" openssl pkey -in /tls/tls.key -pubout)" "$(x509 "$1" /tls/tls.crt -pubkey)"
}
# request_of POD QUERY: prints what jq reads of the CertificateRequests that the pod owns.
request_of() {
	k get certificaterequests -o json | jq -r --arg pod "$1" '.items[] | select(.metadata.ownerReferences[0].name == $pod) | '"$2"
}

# condition REQUEST TYPE: prints reason and message of a request's condition, if it is true.
condition() { k get certificaterequest "$1" -o json | jq -r --arg type "$2" '.status.conditions[]? | select(.type == $type and .status == "True") | .reason + ": " + .message'; }
has_condition() { [ -n "$(condition "$1" "$2")" ]; }
approved() { # REQUEST
	wait_for 30 has_condition "$1" Approved
	k wait --for=condition=ready "certificaterequest/$1" --timeout=30s
}
denied() { # REQUEST TEXT-IN-THE-MESSAGE
	wait_for 30 has_condition "$1" Denied
	contains "why $1 is denied" "$(condition "$1" Denied)" "$2"
	equal "whether $1 is approved too" "$(condition "$1" Approved)" ""
}
