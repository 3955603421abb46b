#!/usr/bin/env bash
# The runbook of docs/trust.md, "Replace a root", step by step on two clusters with one root: no request fails in either direction while
# the root, both intermediates and all certificates are replaced. Then two mistakes: what clients say, and how adding the root that is
# missing corrects them without a new certificate.
# needs: certlet own-cluster second-cluster
. "$(dirname "$0")/../../lib.sh"
. "$(dirname "$0")/../support/two-clusters.sh"

begin
for root in old new next; do
	authority $root
	for cluster in 1 2; do authority $root-$cluster $root; done
done
for cluster in 1 2; do
	on $cluster trust old
	on $cluster issuer old-$cluster old
	on $cluster install
	on $cluster peer server "server.site-$cluster.test"
	COMMAND="sleep infinity" on $cluster peer client "client.site-$cluster.test"
done
for cluster in 1 2; do
	on $cluster running server client
	on $cluster wait_for 10 listens server 8443
done

# Requests in both directions until the file `done` is there.
requests() { # CLUSTER OF-THE-SERVER
	until [ -e "$work/done" ]; do
		on "$1" in_pod client mtls-peer client -connect "$(on "$2" address server):8443" -server-name "server.site-$2.test" -timeout 3s |
			tail -n 1 || return
	done >"$work/from-$1"
}
requests 1 2 &
first=$!
requests 2 1 &
second=$!

trusted() { # NUMBER-OF-ROOTS
	local pod
	for pod in server client; do [ "$(in_pod $pod grep -c BEGIN /tls/ca.crt)" = "$1" ] || return 1; done
}
signed_by() { # INTERMEDIATE
	local pod
	for pod in server client; do [ "$(x509 $pod /tls/tls.crt -issuer)" = "issuer=CN = $1" ] || return 1; done
}
status() { k exec daemonset/$RELEASE -- certlet status; }
leads_to() { status | grep -q "^CN=$1 .* not before "; } # ROOT
not_used() { ! status | grep -q "^CN=$1 "; } # ROOT
for cluster in 1 2; do on $cluster leads_to old; done
# 1. The new root is added in all clusters.
for cluster in 1 2; do on $cluster trust old new; done
for cluster in 1 2; do on $cluster wait_for 30 trusted 2; done
# 2. The issuers switch, one cluster after the other.
for cluster in 1 2; do
	on $cluster issuer new-$cluster new
	on $cluster wait_for 40 signed_by new-$cluster
done
# 3. No node has a certificate of the old root any more.
for cluster in 1 2; do
	on $cluster wait_for 40 not_used old
	on $cluster leads_to new
done
# 4. The old root is removed.
for cluster in 1 2; do on $cluster trust new; done
for cluster in 1 2; do on $cluster wait_for 30 trusted 1; done
sleep 5
touch "$work/done"
status=0
wait $first || status=$?
wait $second || status=$?
for cluster in 1 2; do
	echo "note: requests from cluster $cluster: $(jq -s -c '{ok: map(.ok) | add, failed: map(.failed) | add}' "$work/from-$cluster")"
done
[ $status = 0 ] || fail "requests failed: $(tail -n 1 "$work"/from-*)"

# The old root is removed too early: cluster 1 distrusts the root of cluster 2's certificates.
server_2=$(on 2 address server):8443
asks_2() { on 1 asks client "$server_2" server.site-2.test; }
anchors_are() { [ "$(in_pod client openssl x509 -in /tls/ca.crt -noout -subject)" = "subject=CN = $1" ]; }
on 1 trust next
on 1 wait_for 30 anchors_are next
refused "the server's root was removed too early" "x509: certificate signed by unknown authority" asks_2
on 1 trust new next
on 1 wait_for 30 trusted 2
asks_2

# An issuer is switched before the other cluster trusts its root.
on 1 issuer next-1 next
on 1 wait_for 40 signed_by next-1
refused "the client's root is not trusted yet" "remote error: tls: certificate required" asks_2
on 2 trust new next
on 2 wait_for 30 trusted 2
asks_2
