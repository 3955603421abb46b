#!/usr/bin/env bash
# nginx as an edge with a certificate volume (examples/edge/nginx.yaml). It verifies clients with the volume's anchors. No request fails
# while its certificate rotates four times:
# - when it is reloaded after each change of the files
# - when ssl_certificate has a variable, so that each handshake reads the files
# needs: certlet own-cluster nginx
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/edge.sh"

"$E2E_CLUSTER/image" nginx:1 "$E2E_RUN/bin/nginx" "$(command -v busybox)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
behind
edge nginx nginx:1
edge nginx nginx:1 -e 's|name: edge,|name: edge-variables,|; s|app: edge |app: edge-variables |; s|configMap: { name: edge |configMap: { name: edge-variables |' \
	-e 's|command: .*|command: [nginx, -e, stderr, -c, /etc/edge/nginx.conf, -g, "daemon off;"]|' \
	-e 's|^\( *\)server {|\1map "" $tls { default /tls; }\n&|; s|ssl_certificate /tls|ssl_certificate $tls|; s|ssl_certificate_key /tls|ssl_certificate_key $tls|' \
	-e 's|^\( *\)csi.certlet.io/dns-names: .*|&\n\1csi.certlet.io/reuse-private-key: "true"|'
clients first second
for name in edge edge-variables; do k rollout status deployment/$name --timeout=60s; done

requests_through edge 8443 first >"$work/reload" 2>&1 &
reload=$!
status=0
requests_through edge-variables 8443 second >"$work/variables" 2>&1 || status=$?
wait $reload || status=$?
none_failed "nginx with reloads" "$work/reload"
none_failed "nginx with variables" "$work/variables"
[ $status = 0 ] || fail "$(tail -n 1 "$work"/reload "$work"/variables)"

# nginx completes the handshake with a client that it refuses, and answers with the status 400.
says() { # FOLDER: what nginx answers to a client with these files
	in_pod first sh -c "printf 'GET / HTTP/1.0\r\n\r\n' | timeout 10 openssl s_client -quiet -connect $(edge_address edge):8443 -CAfile /tls/ca.crt ${1:-} 2>/dev/null"
}
contains "a client without a certificate" "$(says)" "No required SSL certificate was sent"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=stranger -keyout "$work/key.pem" -out "$work/stranger.crt" 2>/dev/null
cat "$work/key.pem" >>"$work/stranger.crt"
put first "$work/stranger.crt" /tmp/stranger.pem
contains "a client with a certificate of another CA" "$(says "-cert /tmp/stranger.pem -key /tmp/stranger.pem")" "The SSL certificate error"
in_pod first sh -c 'mkdir /tmp/old && cp -a /tls/. /tmp/old/'
expired() { ! in_pod first openssl x509 -in /tmp/old/tls.crt -noout -checkend 0; }
wait_for 30 expired
contains "a client with an expired certificate" "$(says "-cert /tmp/old/tls.crt -key /tmp/old/tls.key")" "The SSL certificate error"
