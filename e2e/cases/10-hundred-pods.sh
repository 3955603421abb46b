#!/usr/bin/env bash
# Starts a hundred pods at once, and compares with a hundred bare requests to the same issuer.
# needs: certlet
# limit: 900
. "$(dirname "$0")/../lib.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bare -keyout "$work/key" -out "$work/csr" 2>/dev/null
now() { date +%s%3N; }

begin=$(now)
for n in $(seq 100); do
	cat <<-YAML
		---
		apiVersion: cert-manager.io/v1
		kind: CertificateRequest
		metadata: { name: bare-$n }
		spec: { request: $(base64 -w0 "$work/csr"), issuerRef: { kind: ClusterIssuer, name: e2e-ca } }
	YAML
done | k create -f - >/dev/null
k wait --for=condition=ready certificaterequest --all --timeout=120s >/dev/null
bare=$(($(now) - begin))
k delete certificaterequest --all >/dev/null

begin=$(now)
for n in $(seq 100); do
	echo ---
	certificate_pod "app-$n" 'common-name=${POD_NAME}'
done | k create -f - >/dev/null
issued() { [ "$(k get certificaterequests -o json | jq '[.items[] | select(.status.certificate)] | length')" -ge 100 ]; }
wait_for 600 issued
all_issued=$(($(now) - begin))
k wait --for=condition=ready pod --all --timeout=600s >/dev/null
echo "note: 100 bare requests $bare ms; 100 pods: all issued $all_issued ms, all running $(($(now) - begin)) ms"
equal "the number of requests" "$(request_count)" 100
k delete pod --all --wait=false >/dev/null
wait_for 300 has_requests 0
