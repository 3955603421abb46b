#!/usr/bin/env bash
# The ConfigMap of --runtime-issuance-config-map-name names the issuer of csi-driver-spiffe's volumes, and changes it without a restart.
# - Without a ConfigMap the issuer is that of the flags.
# - While there is one, new pods get certificates of its issuer. After it is deleted, they get those of the flags again.
# - A changed ConfigMap changes the issuer. One that lacks a key changes nothing.
# - The approver, with approver.autoApproveNonSpiffe, follows the same ConfigMap: nobody else gets a certificate of that issuer.
# needs: certlet own-cluster
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/spiffe.sh"

spiffe_begin --set certManager.runtimeConfigMap=runtime-config,approver.runtimeConfigMap=runtime-config,approver.autoApproveNonSpiffe=true
account app
ca_issuer first-ca
ca_issuer second-ca
# All roots are trusted, so that only the issuer changes.
cat "$work"/{spiffe,first,second}-ca.crt >"$work/roots.crt"
k create configmap roots --from-file="ca.crt=$work/roots.crt" --dry-run=client -o yaml | k replace -f -

runtime_issuer() { # ISSUER [KEY]: names the issuer; without the KEY, if it is given.
	k create configmap runtime-config --from-literal=issuer-name="$1" --from-literal=issuer-kind=ClusterIssuer --from-literal=issuer-group=cert-manager.io \
		--dry-run=client -o json | jq "del(.data[\"${2:-}\"])" | k apply -f -
}
# The driver hears of a change by a watch, and nothing says when. So a pod is made again until its issuer is the new one.
new_pod_of() { # POD CA
	spiffe_pod "$1" app | k apply -f -
	running "$1"
	signed_by "$1" "$2" || { k delete pod "$1" --wait && return 1; }
}

spiffe_pod simple app | k apply -f -
running simple
has_identity simple app
signed_by simple spiffe-ca || fail "without a ConfigMap the issuer is not that of the flags"
files=$(in_pod simple sh -c 'sha256sum /tls/*')

runtime_issuer first-ca
wait_for 30 new_pod_of with-config first-ca
has_identity with-config app
equal "the issuer in the request" "$(request_of with-config .spec.issuerRef.name)" first-ca
k delete configmap runtime-config
wait_for 30 new_pod_of reverted spiffe-ca
has_identity reverted app

runtime_issuer first-ca
wait_for 30 new_pod_of one first-ca
runtime_issuer second-ca
wait_for 30 new_pod_of two second-ca
has_identity two app
if signed_by two spiffe-ca || signed_by two first-ca; then fail "two issuers have signed one certificate"; fi
equal "the files of the first pod" "$(in_pod simple sh -c 'sha256sum /tls/*')" "$files"

# Nobody else's certificate comes from the issuer of the moment, and that of the flags is free.
DRIVER=csi.certlet.io ISSUER=second-ca certificate_pod stranger common-name=stranger | k apply -f -
is_denied() { events_say stranger "CertificateRefused: .*is the issuer of SPIFFE IDs"; }
wait_for 60 is_denied
