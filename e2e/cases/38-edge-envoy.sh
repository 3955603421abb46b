#!/usr/bin/env bash
# Envoy as an edge with a certificate volume. It verifies clients with the volume's anchors, and their names. No request fails while its
# certificate rotates four times, with secrets from files (examples/edge/envoy.yaml) and over the socket.
# needs: certlet own-cluster envoy
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/edge.sh"

"$E2E_CLUSTER/image" envoy:1 "$E2E_RUN/bin/envoy"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
behind
edge envoy envoy:1
# The same with SDS over the socket in the volume.
certlet='        - name: certlet
          type: STATIC
          typed_extension_protocol_options:
            envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
              "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
              explicit_http_config: { http2_protocol_options: {} }
          load_assignment: { cluster_name: certlet, endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: /tls/socket } } } }] }] }'
edge envoy envoy:1 -e 's|edge-envoy|edge-socket|' -e "s|^      clusters:|&\n${certlet//$'\n'/\\n}|" \
	-e 's|path_config_source: { path: [^ ]*, watched_directory: { path: /tls } }|api_config_source: { api_type: GRPC, transport_api_version: V3, grpc_services: [{ envoy_grpc: { cluster_name: certlet } }] }|' \
	-e 's|csi.certlet.io/layout: envoy|csi.certlet.io/socket-file: socket\n              csi.certlet.io/files: "false"|'
clients first second
for name in edge-envoy edge-socket; do k rollout status deployment/$name --timeout=60s; done

requests_through edge-envoy 8443 first >"$work/files" 2>&1 &
files=$!
status=0
requests_through edge-socket 8443 second >"$work/socket" 2>&1 || status=$?
wait $files || status=$?
none_failed "Envoy with files" "$work/files"
none_failed "Envoy with the socket" "$work/socket"
[ $status = 0 ] || fail "$(tail -n 1 "$work"/*)"

# Envoy refuses in the handshake.
certificate_pod stranger dns-names=stranger.test 'key-usages=digital signature,client auth' | k apply -f -
running stranger
refused() { # WHAT TEXT POD OPTION...
	local said
	said=$(in_pod "$3" sh -c "printf 'GET / HTTP/1.0\r\n\r\n' | timeout 10 openssl s_client -quiet -connect $(edge_address edge-envoy):8443 -CAfile /tls/ca.crt ${*:4} 2>&1") || true
	echo "$1: $said"
	contains "$1" "$said" "$2"
}
refused "a client without a certificate" "alert certificate required" first
refused "a client with another name" "alert" stranger -cert /tls/tls.crt -key /tls/tls.key
in_pod first sh -c 'mkdir /tmp/old && cp -a /tls/. /tmp/old/'
expired() { ! in_pod first openssl x509 -in /tmp/old/tls.crt -noout -checkend 0; }
wait_for 30 expired
refused "a client with an expired certificate" "alert" first -cert /tmp/old/tls.crt -key /tmp/old/tls.key
