#!/usr/bin/env bash
# An issuer that is created late, a request that nobody approves for five minutes, and a request that approver-policy denies. Each
# makes one request only, and the pod's author can read what is wrong.
# needs: certlet own-cluster approver-policy
# limit: 700
. "$(dirname "$0")/../lib.sh"

# The issuer is created late.
ISSUER=late certificate_pod early common-name=early | sed s/ClusterIssuer/Issuer/ | k apply -f -
wait_for 30 has_requests 1
first=$(requests)
sleep 20
equal "the request that waits" "$(requests)" "$first"
k create secret generic late-ca --type=kubernetes.io/tls \
	--from-literal=tls.crt="$(kubectl -n cert-manager get secret e2e-ca -o 'jsonpath={.data.tls\.crt}' | base64 -d)" \
	--from-literal=tls.key="$(kubectl -n cert-manager get secret e2e-ca -o 'jsonpath={.data.tls\.key}' | base64 -d)"
k apply -f - <<YAML
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: { name: late }
spec: { ca: { secretName: late-ca } }
YAML
k wait --for=condition=ready pod/early --timeout=180s
equal "the request that was signed" "$(requests)" "$first"
k delete pod early --wait
wait_for 20 has_requests 0

# Nobody approves for five minutes: approver-policy ignores requests that no policy selects.
trap 'ctl stop approver-policy; ctl restart cert-manager; kubectl delete certificaterequestpolicy --all' EXIT
ctl restart cert-manager+--approve=false
certificate_pod unapproved common-name=unapproved | k apply -f -
wait_for 30 has_requests 1
first=$(requests)
sleep "${APPROVE_AFTER:-300}"
equal "the request that waits" "$(requests)" "$first"
k patch "$first" --subresource=status --type=merge -p '{"status":{"conditions":[{"type":"Approved","status":"True",
	"reason":"ByHand","message":"seen and found good","lastTransitionTime":"'"$(date -u +%FT%TZ)"'"}]}}'
k wait --for=condition=ready pod/unapproved --timeout=180s
equal "the request that was signed" "$(requests)" "$first"
k delete pod unapproved --wait
wait_for 20 has_requests 0

# approver-policy denies the name.
kubectl apply -f "$E2E_RUN/share/approver-policy/crds"
kubectl wait --for=condition=established crd/certificaterequestpolicies.policy.cert-manager.io --timeout=30s
ctl start approver-policy
kubectl apply -f - <<YAML
apiVersion: policy.cert-manager.io/v1alpha1
kind: CertificateRequestPolicy
metadata: { name: e2e-good-names }
spec:
  allowed: { commonName: { value: "good-*" }, usages: [digital signature, key encipherment] }
  selector: { issuerRef: { name: e2e-ca } }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: e2e-use-good-names }
rules: [{ apiGroups: [policy.cert-manager.io], resources: [certificaterequestpolicies], verbs: [use], resourceNames: [e2e-good-names] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: e2e-use-good-names }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: e2e-use-good-names }
subjects: [{ kind: ServiceAccount, name: certlet, namespace: certlet }]
YAML
kubectl wait --for=condition=ready certificaterequestpolicy/e2e-good-names --timeout=60s
certificate_pod good common-name=good-name | k apply -f -
running good
certificate_pod bad common-name=bad-name | k apply -f -
wait_for 60 events_say bad "CertificateRefused: .*denied by policy.cert-manager.io"
request_of_bad() { k get certificaterequests -o json | jq -r '.items[] | select(.metadata.ownerReferences[0].name == "bad") | .metadata.name'; }
first=$(request_of_bad)
sleep 30
equal "the request that was denied" "$(request_of_bad)" "$first"
[ "$(request_count)" -le 2 ] || fail "requests pile up for a denied name: $(requests)"
created=$(k get certificaterequests -o json | jq '[.items[] | select(.status.conditions[]? | .type == "Denied")] | length')
[ "$created" -le 1 ] || fail "a denied name was asked for $created times"
