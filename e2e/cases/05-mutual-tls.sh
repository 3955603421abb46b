#!/usr/bin/env bash
# A TLS 1.3 server and client authenticate each other during ten rotations of both certificates. No request fails.
# needs: certlet
# limit: 400
. "$(dirname "$0")/../lib.sh"

peer() { # NAME MTLS-PEER-ARGUMENTS
	certificate_pod "$1" "dns-names=$1.test" 'key-usages=digital signature,server auth,client auth' duration=20s renew-before=10s |
		sed -e "s|command: .*|command: [mtls-peer, \"${2// /\", \"}\"]|" -e 's|^spec:|&\n  restartPolicy: Never|' | k apply -f -
}
peer server server
running server
wait_for 10 in_pod server sh -c "netstat -ltn | grep -q :8443"
peer client "client -connect $(k get pod server -o 'jsonpath={.status.podIP}'):8443 -server-name server.test -until-serials 11 -timeout 5m"
over() { [[ $(k get pod client -o 'jsonpath={.status.phase}') =~ Succeeded|Failed ]]; }
wait_for 330 over
counters=$(k logs client | grep '^{' | tail -n 1)
echo "note: $counters"
equal "failed requests" "$(jq .failed <<<"$counters")" 0
[ "$(jq '[.peer_serials, .own_serials] | min' <<<"$counters")" -ge 11 ] || fail "fewer than ten rotations"
