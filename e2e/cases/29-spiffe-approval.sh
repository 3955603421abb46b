#!/usr/bin/env bash
# What the approver decides in place of csi-driver-spiffe's, of requests that an account with the right to create them makes by hand:
# - its own SPIFFE ID, for the one duration and the four usages, is approved
# - another duration, the ID of another account, another usage are denied
# - so is a request with an RSA key and another usage. The kind of key alone decides nothing here, as there: an RSA key is approved
# With approver.autoApproveNonSpiffe requests of others are approved too, but none for the issuer of SPIFFE IDs.
# needs: certlet own-cluster
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/spiffe.sh"

spiffe_begin
account app

# request NAME URI [DURATION] [MORE-USAGES] [KEY]: makes a request as the account app. PLAIN: without the annotation.
request() {
	# shellcheck disable=SC2086 # several options
	kubectl --as="system:serviceaccount:$NS:app" -n "$NS" create -f - <<-YAML
		apiVersion: cert-manager.io/v1
		kind: CertificateRequest
		metadata: { name: $1, annotations: { ${PLAIN:-"spiffe.csi.cert-manager.io/identity: $2"} } }
		spec:
		  request: $(openssl req -new -newkey ${5:-ec -pkeyopt ec_paramgen_curve:P-521} -nodes -keyout /dev/null -subj / -addext "subjectAltName=URI:$2" 2>/dev/null | base64 -w0)
		  issuerRef: { name: ${ISSUER:-spiffe-ca}, kind: ClusterIssuer, group: cert-manager.io }
		  duration: ${3:-1h}
		  usages: [digital signature, key encipherment, client auth, server auth${4:+, $4}]
	YAML
}

request valid "$(spiffe_id app)"
request wrong-duration "$(spiffe_id app)" 3h
request wrong-id "$(spiffe_id not-the-right-sa)"
request wrong-usages "$(spiffe_id app)" 1h "cert sign"
request wrong-key "$(spiffe_id app)" 1h "cert sign" rsa:2048
request rsa-key "$(spiffe_id app)" 1h "" rsa:2048
PLAIN="example.org/a: b" request plain "$(spiffe_id app)"
approved valid
contains "the certificate" "$(k get certificaterequest valid -o 'jsonpath={.status.certificate}' | base64 -d | openssl x509 -noout -ext subjectAltName)" "URI:$(spiffe_id app)"
denied wrong-duration 'spec.duration: is "3h"; accepted: 1h0m0s'
denied wrong-id "accepted: $(spiffe_id app)"
denied wrong-usages "spec.usages"
denied wrong-key "spec.usages"
approved rsa-key
equal "what is decided of a request without the annotation" "$(condition plain Approved)$(condition plain Denied)" ""

# In place of cert-manager's own approver. The plain request of before is decided now.
spiffe_install --set approver.autoApproveNonSpiffe=true
denied plain "asks for a SPIFFE ID"
ISSUER=e2e-ca PLAIN="example.org/a: b" request other https://app.test/
approved other
PLAIN="example.org/a: b" request other-of-spiffe-issuer https://app.test/
denied other-of-spiffe-issuer "spec.issuerRef: is the issuer of SPIFFE IDs"
