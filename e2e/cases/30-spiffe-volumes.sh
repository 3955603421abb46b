#!/usr/bin/env bash
# certlet in place of csi-driver-spiffe, under its name, with its approver. Pods make requests with their own tokens.
# - A pod with no attribute gets the identity of its service account. The account needs the right to create CertificateRequests,
#   and nothing else; without it the pod's Events say so.
# - With fs-group a container of that group reads the key, and one of another group does not. The certificate is no secret: here
#   everybody in the pod reads it.
# - The approver treats `certlet sidecar` as it treats a pod's volume: the ID of the sidecar's own account, and no other.
# - Volumes of csi.certlet.io live beside these, even in the same pod, and do not notice when this driver is uninstalled.
# needs: certlet own-cluster
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/spiffe.sh"
. "$(dirname "$0")/support/sidecar.sh"

# The approver takes the place of cert-manager's own for the other driver's requests.
spiffe_begin --set approver.autoApproveNonSpiffe=true
account app
DRIVER=csi.certlet.io certificate_pod neighbour common-name=neighbour | k apply -f -

spiffe_pod plain app | k apply -f -
user() { echo "securityContext: { runAsUser: 1321, runAsGroup: $1 }"; }
SPEC=$(user 1541) spiffe_pod same-group app fs-group=1541 | k apply -f -
SPEC=$(user 123) spiffe_pod other-group app fs-group=1541 | k apply -f -
SPEC='securityContext: { runAsUser: 1321, runAsGroup: 123, fsGroup: 3000 }' spiffe_pod pod-group app | k apply -f -
k create serviceaccount nobody
spiffe_pod no-right nobody | k apply -f -
# Both drivers' volumes in one pod.
spiffe_pod both app | sed -e 's|volumeMounts: \[|&{ name: other, mountPath: /other }, |' -e 's|^  volumes:|&\
    - name: other\
      csi:\
        driver: csi.certlet.io\
        readOnly: true\
        volumeAttributes: { csi.certlet.io/issuer-name: e2e-ca, csi.certlet.io/issuer-kind: ClusterIssuer, csi.certlet.io/common-name: both }|' | k apply -f -
running plain same-group other-group pod-group both neighbour

has_identity plain app
signed_by plain spiffe-ca || fail "the certificate of plain is not of spiffe-ca"
equal "ca.crt" "$(in_pod plain openssl x509 -in /tls/ca.crt -noout -fingerprint)" "$(openssl x509 -in "$work/spiffe-ca.crt" -noout -fingerprint)"
equal "the key's group and mode without a group" "$(in_pod plain stat -L -c %u:%g:%a /tls/tls.key)" 0:0:440
request=$(request_of plain .)
for part in '.spec.username system:serviceaccount:'"$NS:app" '.spec.duration 1h0m0s' ".metadata.annotations[\"spiffe.csi.cert-manager.io/identity\"] $(spiffe_id app)" \
	'.spec.issuerRef.name spiffe-ca' '(.spec.isCA//false) false' '(.spec.usages|sort|join(",")) client auth,digital signature,key encipherment,server auth'; do
	equal "the request's ${part%% *}" "$(jq -r "${part%% *}" <<<"$request")" "${part#* }"
done
contains "who approved it" "$(jq -r '.status.conditions[].reason' <<<"$request")" approver.certlet.io

for file in tls.crt tls.key ca.crt; do
	for pod in same-group pod-group; do
		in_pod $pod cat /tls/$file >"$work/$file"
		[ -s "$work/$file" ] || fail "$file of $pod is empty"
	done
done
if in_pod other-group cat /tls/tls.key >/dev/null 2>&1; then fail "a container of another group reads the key"; fi
equal "the key's group and mode with fs-group" "$(in_pod same-group stat -L -c %u:%g:%a /tls/tls.key)" 0:1541:440
equal "the key's group and mode with the pod's fsGroup" "$(in_pod pod-group stat -L -c %u:%g:%a /tls/tls.key)" 0:3000:440

has_identity both app
contains "the other volume of the same pod" "$(in_pod both openssl x509 -in /other/tls.crt -noout -subject)" "CN = both"
says_what_is_missing() { k get events --field-selector involvedObject.name=no-right -o json | jq -e '[.items[].message | select(contains("certificaterequests"))] | length > 0'; }
wait_for 60 says_what_is_missing
k create rolebinding nobody --role=requester --serviceaccount="$NS:nobody"
k wait --for=condition=ready pod/no-right --timeout=120s
has_identity no-right nobody

# Sidecars ask with their own token. The second one wants the ID of another account.
sidecar_account app
export ISSUER=spiffe-ca TRUST_DOMAIN=foo.bar
sidecar_pod sidecar spiffe=true | k apply -f -
ENV=", { name: CERTLET_SPIFFE_ID_TEMPLATE, value: 'spiffe://{trustDomain}/ns/{namespace}/sa/nobody' }" sidecar_pod sidecar-of-nobody spiffe=true | k apply -f -
unset ISSUER TRUST_DOMAIN
running sidecar
contains "the sidecar's identity" "$(k exec sidecar -c main -- openssl x509 -in /tls/tls.crt -noout -ext subjectAltName)" "URI:$(spiffe_id app)"
contains "who approved it" "$(request_of sidecar '.status.conditions[].reason')" approver.certlet.io
wait_for 60 describes sidecar-of-nobody "accepted: $(spiffe_id app)"

# This driver goes, and comes back.
others() {
	in_pod neighbour sha256sum /tls/tls.crt /tls/tls.key /tls/ca.crt
	in_pod both sh -c 'sha256sum /other/* /tls/*'
}
before=$(others)
helm uninstall $RELEASE --namespace "$NS" --wait
equal "the files after the uninstall" "$(others)" "$before"
spiffe_install --set approver.autoApproveNonSpiffe=true
equal "the files after another install" "$(others)" "$before"
k delete pod both plain --wait
has_no_requests() { [ -z "$(request_of both .)$(request_of plain .)" ]; }
wait_for 20 has_no_requests
