#!/usr/bin/env bash
# The runbook of docs/trust.md, "Replace a root", step by step on two clusters with one root: no request fails in either direction while
# the root, both intermediates and all certificates are replaced. Then a root is removed too early: what clients say, and how adding it
# again heals that without a new certificate.
# needs: certlet own-cluster second-cluster
. "$(dirname "$0")/../../lib.sh"
. "$(dirname "$0")/../support/two-clusters.sh"

begin
for root in old new; do
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
# 1. The new root is added in all clusters.
for cluster in 1 2; do on $cluster trust old new; done
for cluster in 1 2; do on $cluster wait_for 30 trusted 2; done
# 2. The issuers switch, one cluster after the other.
for cluster in 1 2; do
	on $cluster issuer new-$cluster new
	on $cluster wait_for 40 signed_by new-$cluster
done
# 3. The old root is removed.
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

# The wrong order: cluster 1 distrusts the root whose certificates cluster 2 still has.
certificates() { on 1 in_pod client sha256sum /tls/tls.crt; }
ask() { on 1 asks client "$(on 2 address server):8443" server.site-2.test; }
on 1 trust old
old_only() { [ "$(in_pod client openssl x509 -in /tls/ca.crt -noout -subject)" = "subject=CN = old" ]; }
on 1 wait_for 30 old_only
refused "Go, a root that was removed too early" "x509: certificate signed by unknown authority" ask
on 1 trust old new
on 1 wait_for 30 trusted 2
ask
