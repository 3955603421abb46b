#!/usr/bin/env bash
# Applies the policy of docs/security.md unchanged: a pod gets the identity of its own service account and names of its own
# namespace, and no others. It is the same for a volume of the driver and for `certlet sidecar`.
# needs: certlet own-cluster approver-policy
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/sidecar.sh"

export DRIVER=names.csi.certlet.io
helm_install names $DRIVER --set "requesters.namespaces={$NS}"
kubectl apply -f "$E2E_RUN/share/approver-policy/crds"
kubectl wait --for=condition=established crd/certificaterequestpolicies.policy.cert-manager.io --timeout=30s
trap 'helm_end names; ctl stop approver-policy; ctl restart cert-manager; kubectl delete certificaterequestpolicy --all' EXIT
ctl restart cert-manager+--approve=false
ctl start approver-policy
recipe() { sed -n '/^apiVersion: policy.cert-manager.io/,/^```/p' "$E2E/../docs/security.md" | sed '/^```/d; s/internal-ca/e2e-ca/'; }
recipe | kubectl apply -f -
kubectl wait --for=condition=ready certificaterequestpolicy/pods --timeout=60s

k create serviceaccount shop
# shellcheck disable=SC2016 # variables of certlet's
names=('uri-sans=spiffe://example.org/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}'
	'dns-names=${POD_NAME}.${POD_NAMESPACE}.svc.cluster.local' duration=1h)
SPEC='serviceAccountName: shop' certificate_pod good "${names[@]}" | k apply -f -
running good
contains "its identity" "$(x509 good /tls/tls.crt -ext subjectAltName)" "URI:spiffe://example.org/ns/$NS/sa/shop"

SPEC='serviceAccountName: shop' certificate_pod other-account "uri-sans=spiffe://example.org/ns/$NS/sa/bank" duration=1h | k apply -f -
SPEC='serviceAccountName: shop' certificate_pod other-namespace "${names[0]}" dns-names=web.bank.svc.cluster.local duration=1h | k apply -f -
denied() { events_say "$1" "CertificateRefused: .*denied by policy.cert-manager.io.*$2"; }
wait_for 60 denied other-account "must be the identity of the service account that asks"
wait_for 60 denied other-namespace "must end in the pod's own namespace"

# A sidecar says itself which names it wants. Its token says whose they are.
sidecar_account shop
export ACCOUNT=shop
usages='key-usages=digital signature,key encipherment,server auth,client auth'
sidecar_pod good-sidecar "${names[@]}" "$usages" | k apply -f -
sidecar_pod sidecar-of-other-account "uri-sans=spiffe://example.org/ns/$NS/sa/bank" duration=1h "$usages" | k apply -f -
sidecar_pod sidecar-of-other-namespace "${names[0]}" dns-names=web.bank.svc.cluster.local duration=1h "$usages" | k apply -f -
running good-sidecar
contains "its identity" "$(k exec good-sidecar -c main -- openssl x509 -in /tls/tls.crt -noout -ext subjectAltName)" "URI:spiffe://example.org/ns/$NS/sa/shop"
wait_for 60 describes sidecar-of-other-account "must be the identity of the service account that asks"
wait_for 60 describes sidecar-of-other-namespace "must end in the pod's own namespace"
