#!/usr/bin/env bash
# In token-request mode, the default, the pod's own service account makes the request. If it may not, the error says which rule is
# missing, and adding the rule fixes it.
# needs: certlet
. "$(dirname "$0")/../lib.sh"

export DRIVER=token.csi.certlet.io
trap 'helm_end token' EXIT
helm_install token $DRIVER --set certManager.tokenRequest.expirationSeconds=600

k create serviceaccount app
k create role request-certificates --verb=create --resource=certificaterequests.cert-manager.io
SPEC='serviceAccountName: app' certificate_pod app common-name=a | k apply -f -
says_what_is_missing() {
	k get events --field-selector involvedObject.name=app -o json | jq -e --arg user "system:serviceaccount:$NS:app" \
		'[.items[].message | select(contains($user) and contains("create") and contains("certificaterequests"))] | length > 0'
}
wait_for 60 says_what_is_missing
equal "the number of requests" "$(request_count)" 0

k create rolebinding app --role=request-certificates --serviceaccount="$NS:app"
k wait --for=condition=ready pod/app --timeout=180s
equal "who made the request" "$(k get certificaterequests -o 'jsonpath={.items[*].spec.username}')" "system:serviceaccount:$NS:app"
contains "the node that the token is bound to" "$(k get certificaterequests -o 'jsonpath={.items[0].spec.extra}')" authentication.kubernetes.io/node-name
