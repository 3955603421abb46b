#!/usr/bin/env bash
# Two clusters with a root and a trust domain each, one.test and two.test. Each gives its pods the other's trust bundle: cluster 1 from a
# SPIFFE bundle document, cluster 2 from PEM.
# - go-spiffe clients and servers of both talk mutual TLS with each other, by the sockets of their volumes, while all certificates rotate.
#   No request fails.
# - Refused: a workload with another ID, a trust domain that a pod has not asked for, and an ID of one.test that the CA of two.test has
#   signed. docs/trust.md quotes the clients' errors.
# needs: certlet own-cluster second-cluster spiffe-peer
. "$(dirname "$0")/../../lib.sh"
. "$(dirname "$0")/../support/two-clusters.sh"

export POD_IMAGE=localhost/spiffe-pod:1
domains=(none one.test two.test)
id() { echo "spiffe://${domains[$1]}/ns/$NS/sa/$2"; } # CLUSTER ACCOUNT

# bundle_document ROOT: prints a SPIFFE bundle document with that root.
bundle_document() {
	local point base64url=(base64 -w0)
	point=$(openssl x509 -in "$work/$1.crt" -noout -pubkey | openssl pkey -pubin -outform DER | tail -c 64 | "${base64url[@]}")
	coordinate() { base64 -d <<<"$point" | "$@" | base64 -w0 | tr '+/' '-_' | tr -d '='; }
	jq -n --arg x "$(coordinate head -c 32)" --arg y "$(coordinate tail -c 32)" --arg x5c "$(openssl x509 -in "$work/$1.crt" -outform DER | base64 -w0)" \
		'{spiffe_sequence: 1, spiffe_refresh_hint: 300, keys: [{use: "x509-svid", kty: "EC", crv: "P-256", x: $x, y: $y, x5c: [$x5c]}]}'
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
bundle_document root-2 >"$work/two.json"
on 1 k create configmap federated --from-file="bundle.json=$work/two.json"
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

# Both ways, while the certificates rotate.
rotations() { # CLUSTER OF-THE-SERVER
	on "$1" in_pod client spiffe-peer client -connect "$(on "$2" address server):8443" -peer "$(id "$2" server)" \
		-until-serials 4 -timeout 90s >"$work/from-$1" 2>&1
}
status=0
rotations 1 2 &
first=$!
rotations 2 1 || status=$?
wait $first || status=$?
for cluster in 1 2; do echo "note: requests from cluster $cluster: $(grep '^{' "$work/from-$cluster" | tail -n 1)"; done
[ $status = 0 ] || fail "requests failed: $(tail -n 1 "$work"/from-*)"

server=$(on 2 address server)
refused "another ID" 'unexpected ID "'"$(id 2 server)" on 1 asks_by_id client "$server" "$(id 2 other)"
refused "a client with another ID" "remote error: tls: bad certificate" on 1 asks_by_id stranger "$server" "$(id 2 server)"
refused "a trust domain without a trust bundle" 'no X.509 bundle for trust domain "two.test"' on 1 asks_by_id alone "$server" "$(id 2 server)"
refused "an ID that the other domain's CA has signed" "x509: certificate signed by unknown authority" \
	on 1 asks_by_id client "$(on 2 address impostor)" "$(id 1 server)"
