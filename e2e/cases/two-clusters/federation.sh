#!/usr/bin/env bash
# Two clusters with a root and a trust domain each, one.test and two.test. Each gives its pods the other's trust bundle: cluster 1 from a
# SPIFFE bundle document, cluster 2 from PEM.
# - go-spiffe clients and servers of both talk mutual TLS with each other, by the sockets of their volumes, while all certificates rotate.
#   No request fails, and none while the root of two.test is replaced, either.
# - Refused: a workload with another ID, a trust domain that a pod has not asked for, and an ID of one.test that the CA of two.test has
#   signed. docs/trust.md quotes the clients' errors.
# needs: certlet own-cluster second-cluster spiffe-peer
. "$(dirname "$0")/../../lib.sh"
. "$(dirname "$0")/../support/two-clusters.sh"

export POD_IMAGE=localhost/spiffe-pod:1
serial() { in_pod "$1" cat /tls/tls.crt | openssl x509 -noout -serial; } # the image has no openssl
domains=(none one.test two.test)
id() { echo "spiffe://${domains[$1]}/ns/$NS/sa/$2"; } # CLUSTER ACCOUNT

# bundle_document ROOT...: prints a SPIFFE bundle document with these roots.
bundle_document() {
	local name
	for name; do
		jq -n --arg x "$(coordinate "$name" head -c 32)" --arg y "$(coordinate "$name" tail -c 32)" \
			--arg x5c "$(openssl x509 -in "$work/$name.crt" -outform DER | base64 -w0)" \
			'{use: "x509-svid", kty: "EC", crv: "P-256", x: $x, y: $y, x5c: [$x5c]}'
	done | jq -s '{spiffe_sequence: 1, spiffe_refresh_hint: 300, keys: .}'
}
# coordinate ROOT COMMAND...: prints a coordinate of the root's public key, which the command cuts out of the point.
coordinate() {
	openssl x509 -in "$work/$1.crt" -noout -pubkey | openssl pkey -pubin -outform DER | tail -c 64 | "${@:2}" | base64 -w0 | tr '+/' '-_' | tr -d '='
}
# federate ROOT...: gives cluster 1 a document with these roots of two.test.
federate() {
	bundle_document "$@" >"$work/two.json"
	on 1 k create configmap federated --from-file="bundle.json=$work/two.json" --dry-run=client -o yaml | on 1 k apply -f -
}
# workload NAME ATTRIBUTE=VALUE...: starts a pod with a socket, as the service account of its name. COMMAND is what it runs.
workload() {
	local name=$1
	shift
	k create serviceaccount "$name"
	ISSUER=site-ca SPEC="serviceAccountName: $name" certificate_pod "$name" socket-file=spiffe.sock duration=20s renew-before=10s "$@" |
		sed -e "s|command: .*|command: [sh, -c, '${COMMAND:-sleep infinity}']|" | k apply -f -
}
# asks_by_id POD ADDRESS ID: makes one request with go-spiffe. Prints errors.
asks_by_id() {
	in_pod "$1" spiffe-peer client -connect "$2:8443" -peer "$3" -timeout 100ms -interval 200ms 2>&1
}

begin
for cluster in 1 2; do
	authority root-$cluster
	authority site-$cluster root-$cluster
	on $cluster trust root-$cluster
	on $cluster issuer site-$cluster root-$cluster
done
federate root-2
on 2 k create configmap federated --from-file="ca.crt=$work/root-1.crt"
federated=(none "{\"two.test\": [\"spiffe-bundle:configmap:$NS/federated/bundle.json\"]}" "{\"one.test\": [\"configmap:$NS/federated/ca.crt\"]}")
for cluster in 1 2; do
	other=$((3 - cluster))
	on $cluster install --set "spiffe.trustDomain=${domains[$cluster]}" --set-json "trust.federatedBundles=${federated[$cluster]}"
	COMMAND="exec spiffe-peer server -peer $(id $other client)" on $cluster workload server spiffe=true "federated-bundles=${domains[$other]}"
	on $cluster workload client spiffe=true "federated-bundles=${domains[$other]}"
done
on 1 workload stranger spiffe=true 'federated-bundles=*'
on 1 workload alone spiffe=true
COMMAND="exec spiffe-peer server -peer spiffe://one.test" on 2 workload impostor "uri-sans=$(id 1 server)" \
	'key-usages=digital signature,key encipherment,server auth,client auth'
on 1 running server client stranger alone
on 2 running server client impostor
for cluster in 1 2; do on $cluster wait_for 10 listens server 8443; done
on 2 wait_for 10 listens impostor 8443

# Requests in both directions until the file `done` is there.
requests() { # CLUSTER OF-THE-SERVER
	until [ -e "$work/done" ]; do
		on "$1" in_pod client spiffe-peer client -connect "$(on "$2" address server):8443" -peer "$(id "$2" server)" -timeout 3s |
			tail -n 1 || return
	done >"$work/from-$1"
}
requests 1 2 &
first=$!
requests 2 1 &
second=$!
# All certificates rotate.
renewed() { [ "$(serial client)" != "${before[$cluster]}" ]; }
for cluster in 1 2; do before[cluster]=$(on $cluster serial client); done
for cluster in 1 2; do on $cluster wait_for 30 renewed; done
# The root of two.test is replaced: first both are trusted, in both clusters, then the issuer switches, then the old one goes.
authority root-3
authority site-3 root-3
on 2 trust root-2 root-3
federate root-2 root-3
roots() { [ "$(in_pod "$1" grep -c BEGIN "/tls/$2")" = "$3" ]; } # POD FILE NUMBER
for pod in server client; do
	on 2 wait_for 30 roots $pod ca.crt 2
	on 1 wait_for 30 roots $pod two.test.spiffe-trust-bundle.x509.pem 2
done
on 2 issuer site-3 root-3
signed_by() { [ "$(in_pod "$1" cat /tls/tls.crt | openssl x509 -noout -issuer)" = "issuer=CN = $2" ]; }
for pod in server client; do on 2 wait_for 40 signed_by $pod site-3; done
federate root-3
on 2 trust root-3
for pod in server client; do
	on 2 wait_for 30 roots $pod ca.crt 1
	on 1 wait_for 30 roots $pod two.test.spiffe-trust-bundle.x509.pem 1
done
sleep 3
touch "$work/done"
status=0
wait $first || status=$?
wait $second || status=$?
for cluster in 1 2; do
	echo "note: requests from cluster $cluster: $(jq -s -c '{ok: map(.ok) | add, failed: map(.failed) | add}' "$work/from-$cluster")"
done
[ $status = 0 ] || fail "requests failed"

server=$(on 2 address server)
refused "another ID" 'unexpected ID "'"$(id 2 server)" on 1 asks_by_id client "$server" "$(id 2 other)"
refused "a client with another ID" "remote error: tls: bad certificate" on 1 asks_by_id stranger "$server" "$(id 2 server)"
refused "a trust domain without a trust bundle" 'no X.509 bundle for trust domain "two.test"' on 1 asks_by_id alone "$server" "$(id 2 server)"
refused "an ID that the other domain's CA has signed" "x509: certificate signed by unknown authority" \
	on 1 asks_by_id client "$(on 2 address impostor)" "$(id 1 server)"
