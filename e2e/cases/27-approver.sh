#!/usr/bin/env bash
# `certlet approver` beside cert-manager's signing controllers, with requests that are made by real tokens:
# - with token requests a pod's account gets its own SPIFFE ID and no other, and requests without the annotation are left alone
# - with the driver's own account an identity is approved only if a pod with it is on the node of the driver's token
# - when the approver that leads ends, the other one takes over
# The driver's part is played by openssl and kubectl, so that wrong requests can be made too. This cluster's cert-manager has no webhook, so the
# right `approve` on signers is not asked for here.
# needs: certlet own-cluster
# limit: 400
. "$(dirname "$0")/../lib.sh"

release=appr
driver=approver.csi.certlet.io
ca=$(mktemp)
cleanup() {
	rm -f "$ca"
	ctl restart cert-manager
	helm_end $release
	kubectl delete node elsewhere --ignore-not-found
}
trap cleanup EXIT
ctl restart cert-manager+--approve=false
# The approver alone decides: the admission policy that binds the driver's requests to its node is off.
install() {
	helm_install $release $driver --set "approver.enabled=true,approver.replicas=2,approver.signerNames={clusterissuers.cert-manager.io/e2e-ca}" \
		--set nodeIsolation.enabled=false "$@"
	k rollout status deployment/$release-approver --timeout=90s >/dev/null
}
install
node=$(kubectl get nodes -o 'jsonpath={.items[0].metadata.name}')
# A second node without a kubelet. Pods can be bound to it, which is enough for a token.
kubectl apply -f - <<YAML
apiVersion: v1
kind: Node
metadata: { name: elsewhere, labels: { kubernetes.io/os: none } }
spec: { taints: [{ key: other, effect: NoSchedule }] }
YAML
pod_on() { # NAME NODE SERVICE-ACCOUNT
	k apply -f - >/dev/null <<-YAML
		apiVersion: v1
		kind: Pod
		metadata: { name: $1 }
		spec:
		  nodeName: $2
		  serviceAccountName: $3
		  terminationGracePeriodSeconds: 0
		  tolerations: [{ operator: Exists }]
		  containers: [{ name: main, image: "$POD_IMAGE", imagePullPolicy: IfNotPresent, command: [sleep, infinity] }]
	YAML
}
token_of() { # POD SERVICE-ACCOUNT
	k create token "$2" --bound-object-kind Pod --bound-object-name "$1" --bound-object-uid "$(k get pod "$1" -o 'jsonpath={.metadata.uid}')"
}
k create serviceaccount shop
k create serviceaccount bank
k create role make-requests --verb=create --resource=certificaterequests.cert-manager.io
k create rolebinding make-requests --role=make-requests --serviceaccount="$NS:shop" --serviceaccount="$NS:$release"
pod_on shop "$node" shop
pod_on bank elsewhere bank
pod_on driver-here "$node" $release
pod_on driver-elsewhere elsewhere $release
running shop
server=$(kubectl config view --minify --raw -o 'jsonpath={.clusters[0].cluster.server}')
kubectl config view --minify --raw --flatten -o 'jsonpath={.clusters[0].cluster.certificate-authority-data}' | base64 -d >"$ca"

csr_for() { # URI
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj / -addext "subjectAltName=critical,URI:$1" 2>/dev/null | base64 -w0
}
id() { echo "spiffe://cluster.local/ns/$NS/sa/$1"; }
# request TOKEN NAME URI [DURATION]: makes a request as that token's account. PLAIN: without the annotation.
request() {
	kubectl --kubeconfig=/dev/null --server="$server" --certificate-authority="$ca" --token="$1" -n "$NS" create -f - <<-YAML
		apiVersion: cert-manager.io/v1
		kind: CertificateRequest
		metadata: { name: $2, annotations: { ${PLAIN:-"spiffe.csi.cert-manager.io/identity: $3"} } }
		spec:
		  request: $(csr_for "$3")
		  issuerRef: { name: e2e-ca, kind: ClusterIssuer, group: cert-manager.io }
		  duration: ${4:-1h}
		  usages: [digital signature, key encipherment, server auth, client auth]
	YAML
}
condition() { k get certificaterequest "$1" -o json | jq -r --arg type "$2" '.status.conditions[]? | select(.type == $type and .status == "True") | .reason + ": " + .message'; }
approved() { wait_for 30 test_condition "$1" Approved && k wait --for=condition=ready "certificaterequest/$1" --timeout=30s; }
test_condition() { [ -n "$(condition "$1" "$2")" ]; }
denied() { # NAME TEXT-IN-THE-MESSAGE
	wait_for 30 test_condition "$1" Denied
	contains "why $1 is denied" "$(condition "$1" Denied)" "$2"
	equal "whether $1 is approved too" "$(condition "$1" Approved)" ""
}

# The pods' own accounts.
shop=$(token_of shop shop)
request "$shop" own "$(id shop)"
request "$shop" of-bank "$(id bank)"
request "$shop" too-long "$(id shop)" 2h
PLAIN="example.org/a: b" request "$shop" plain "$(id shop)"
approved own
contains "the reason" "$(condition own Approved)" approver.certlet.io
contains "the certificate" "$(k get certificaterequest own -o 'jsonpath={.status.certificate}' | base64 -d | openssl x509 -noout -ext subjectAltName)" "URI:$(id shop)"
denied of-bank "accepted: $(id shop)"
denied too-long 'spec.duration: is "2h"; accepted: 1h0m0s'
equal "what is decided of a request without the annotation" "$(condition plain Approved)$(condition plain Denied)" ""

# The driver's account.
install --set certManager.tokenRequest.enabled=false
holder() { k get lease $driver -o 'jsonpath={.spec.holderIdentity}'; }
# An approver with the old settings may still be ending.
settled() {
	[ "$(k get pods -l app.kubernetes.io/name=certlet-approver -o name | wc -l)" = 2 ] && k get pod "$(holder | sed 's/_[^_]*$//')"
}
wait_for 60 settled
here=$(token_of driver-here $release)
elsewhere=$(token_of driver-elsewhere $release)
request "$here" driver-own "$(id shop)"
request "$here" driver-stolen "$(id bank)"
request "$elsewhere" driver-elsewhere "$(id bank)"
request "$elsewhere" driver-elsewhere-stolen "$(id shop)"
request "$(k create token $release)" driver-unbound "$(id shop)"
request "$shop" by-pod "$(id shop)"
approved driver-own
approved driver-elsewhere
denied driver-stolen "has no pod of the service account $NS/bank"
denied driver-elsewhere-stolen "has no pod of the service account $NS/shop"
denied driver-unbound "has no authentication.kubernetes.io/node-name"
denied by-pod "accepted: system:serviceaccount:$NS:$release"

# The leader.
leader=$(holder)
address=$(k get pod "${leader%_*}" -o 'jsonpath={.status.podIP}')
contains "the leader's metrics" "$(curl -fsS "http://$address:9402/metrics")" 'certlet_request_denials_total{reason="pod"} 2'
k delete pod "${leader%_*}" --grace-period=0 --force
another() { [ -n "$(holder)" ] && [ "$(holder)" != "$leader" ]; }
wait_for 60 another
request "$here" after "$(id shop)"
approved after
