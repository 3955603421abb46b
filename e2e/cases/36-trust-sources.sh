#!/usr/bin/env bash
# A volume names its trust sources in ca-source: a ConfigMap of its own namespace, ClusterTrustBundles by name and by signer, an entry of
# the operator's, and the signer. Changes reach the running pod without a new certificate. A ConfigMap that the operator does not list
# cannot be named, nor read by the driver. A server without ClusterTrustBundles is named as the cause.
# needs: own-cluster certlet
. "$(dirname "$0")/../lib.sh"

export DRIVER=trust.csi.certlet.io
work=$(mktemp -d)
end() {
	local status=$?
	if [ $status != 0 ]; then k exec daemonset/trust -- certlet status || true; fi
	helm_end trust
	kubectl delete clustertrustbundle e2e-named e2e.certlet.io:mesh:one e2e.certlet.io:mesh:two --ignore-not-found || true
	rm -rf "$work"
	return $status
}
trap end EXIT
for root in a b c d e; do
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=root $root" -keyout /dev/null -out "$work/$root.crt" 2>/dev/null
done
k create configmap roots --from-file="ca.crt=$work/a.crt"
k create configmap hidden --from-file="ca.crt=$work/a.crt"
k create configmap entry --from-file="ca.crt=$work/b.crt"
helm_install trust $DRIVER --set "trust.configMapNames={roots},trust.named.partners={configmap:$NS/entry}"
k create rolebinding requester --clusterrole=trust-requester --group="system:serviceaccounts:$NS"

# What the driver's account may read.
account=system:serviceaccount:$NS:$(k get pod -l app.kubernetes.io/instance=trust -o 'jsonpath={.items[0].spec.serviceAccountName}')
may() { kubectl auth can-i --as="$account" "$@" >/dev/null; }
may get configmap/roots --namespace default || fail "the driver may not read the ConfigMaps that the operator lists"
may get configmap/entry --namespace "$NS" || fail "the driver may not read the operator's entry"
if may get configmap/hidden --namespace "$NS"; then fail "the driver may read a ConfigMap that nobody lists"; fi
if may list configmaps --namespace "$NS"; then fail "the driver may list ConfigMaps"; fi

trusts() { # POD ROOT...: whether these roots are in ca.crt, in this order.
	local pod=$1 root
	shift
	[ "$(in_pod "$pod" cat /tls/ca.crt)" = "$(for root; do cat "$work/$root.crt"; done)" ]
}

certificate_pod app dns-names=app "ca-source=configmap:roots,partners" | k apply -f -
running app
before=$(serial app)
trusts app a b || fail "the pod does not trust the ConfigMap's and the entry's roots: $(in_pod app cat /tls/ca.crt)"
k create configmap roots --from-file="ca.crt=$work/c.crt" --dry-run=client -o yaml | k replace -f -
wait_for 20 trusts app c b
equal "the serial number" "$(serial app)" "$before"
certificate_pod refused dns-names=refused "ca-source=configmap:hidden" | k apply -f -
refused() { k get events --field-selector involvedObject.name=refused -o json | jq -e '[.items[].message | select(contains("is not a ConfigMap that the operator allows (roots)"))] | length > 0'; }
wait_for 60 refused

# A source that goes: everything stays, and the author is told.
k delete configmap roots
wait_for 30 events_say app "TrustSourceFailed: the trust source configmap:$NS/roots does not exist; its last anchors stay in use"
trusts app c b || fail "ca.crt changed when the source went"
k create configmap roots --from-file="ca.crt=$work/a.crt"
wait_for 30 trusts app a b

# ClusterTrustBundles.
bundles() { # NAME SIGNER ROOT...
	local name=$1 signer=$2
	shift 2
	local file=$work/bundle.pem root
	for root; do cat "$work/$root.crt"; done >"$file"
	jq -n --arg name "$name" --arg signer "$signer" --rawfile pem "$file" \
		'{apiVersion: "certificates.k8s.io/v1", kind: "ClusterTrustBundle", metadata: {name: $name, labels: {tier: "a"}}, spec: ({trustBundle: $pem} + if $signer == "" then {} else {signerName: $signer} end)}' |
		kubectl apply -f -
}
if ! kubectl api-resources --api-group=certificates.k8s.io -o name | grep -q clustertrustbundles; then
	certificate_pod bundles dns-names=bundles "ca-source=clustertrustbundle:e2e-named" | k apply -f -
	lacks() { k get events --field-selector involvedObject.name=bundles -o json | jq -e '[.items[].message | select(contains("the API server has no ClusterTrustBundles"))] | length > 0'; }
	wait_for 60 lacks
	echo "note: this server has no ClusterTrustBundles, and the pod's author is told"
	exit 0
fi
bundles e2e-named "" a
bundles e2e.certlet.io:mesh:one e2e.certlet.io/mesh b
certificate_pod bundles dns-names=bundles "ca-source=clustertrustbundle:e2e-named,clustertrustbundle:e2e.certlet.io/mesh?tier=a" | k apply -f -
running bundles
before=$(serial bundles)
wait_for 20 trusts bundles a b
bundles e2e.certlet.io:mesh:two e2e.certlet.io/mesh c
wait_for 20 trusts bundles a b c
bundles e2e-named "" d
wait_for 20 trusts bundles d b c
kubectl label clustertrustbundle e2e.certlet.io:mesh:one tier=b --overwrite
wait_for 20 trusts bundles d c
kubectl delete clustertrustbundle e2e-named
wait_for 30 events_say bundles "TrustSourceFailed: the trust source clustertrustbundle:e2e-named does not exist"
trusts bundles d c || fail "ca.crt changed when the ClusterTrustBundle went"
equal "the serial number" "$(serial bundles)" "$before"

# Joined with the signer's CA.
certificate_pod both dns-names=both "ca-source=signer,partners" | k apply -f -
running both
in_pod both openssl verify -CAfile /tls/ca.crt /tls/tls.crt
equal "anchors" "$(in_pod both grep -c BEGIN /tls/ca.crt)" 2
