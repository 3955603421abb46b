#!/usr/bin/env bash
# What `certlet sidecar` withstands, and what it needs:
# - kill -9 under open streams of the Workload API and of SDS: go-spiffe and Envoy connect again, nothing is asked for anew, and no request
#   fails
# - a memory limit of 32 MiB; less than 8 MiB of anonymous memory with files, a socket and clients
# - a shared directory on a disk is refused, and so is one with somebody else's files
# needs: certlet own-cluster spiffe-peer envoy
# limit: 400
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/sidecar.sh"

sidecar_begin
"$E2E_CLUSTER/image" spiffe-pod:1 "$(command -v busybox)" "$(command -v openssl)" "$E2E_RUN/bin/spiffe-peer"

# Certificates of 80 seconds, renewed after 40: long enough to kill and come back between two renewals.
export IMAGE=localhost/spiffe-pod:1
attributes=(spiffe=true socket-file=socket duration=80s renew-before=40s)
id=spiffe://example.org/ns/$NS/sa/app
COMMAND="[spiffe-peer, server, -socket, 'unix:///tls/socket', -peer, '$id']" sidecar_pod server "${attributes[@]}" | k apply -f -
running server
listens() { k exec server -c main -- sh -c "netstat -ltn | grep -q :8443"; }
wait_for 20 listens
COMMAND="[spiffe-peer, client, -socket, 'unix:///tls/socket', -peer, '$id', -connect, '$(k get pod server -o 'jsonpath={.status.podIP}'):8443', -until-serials, '3', -timeout, 240s]" \
	POD='restartPolicy: Never' sidecar_pod client "${attributes[@]}" | k apply -f -
running client

# Envoy gets its secrets by SDS, and answers each client that has a certificate.
"$E2E_CLUSTER/image" envoy:1 "$E2E_RUN/bin/envoy"
sds='sds_config: { resource_api_version: V3, api_config_source: { api_type: GRPC, transport_api_version: V3, grpc_services: [{ envoy_grpc: { cluster_name: certlet } }] } }'
types=type.googleapis.com/envoy.extensions
k create configmap envoy --from-literal=envoy.yaml="
node: { id: envoy, cluster: envoy }
static_resources:
  listeners:
    - address: { socket_address: { address: 0.0.0.0, port_value: 8443 } }
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              '@type': $types.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              common_tls_context:
                tls_params: { tls_maximum_protocol_version: TLSv1_3 }
                tls_certificate_sds_secret_configs: [{ name: default, $sds }]
                validation_context_sds_secret_config: { name: ROOTCA, $sds }
          filters:
            - name: http
              typed_config:
                '@type': $types.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: http
                route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [{ match: { prefix: / }, direct_response: { status: 200, body: { inline_string: hello } } }] }] }
                http_filters: [{ name: router, typed_config: { '@type': $types.filters.http.router.v3.Router } }]
  clusters:
    - name: certlet
      type: STATIC
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          '@type': $types.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }
      load_assignment: { cluster_name: certlet, endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: /tls/socket } } } }] }] }
"
lifetime=(duration=80s renew-before=40s)
IMAGE=localhost/envoy:1 COMMAND='[envoy, -c, /etc/envoy/envoy.yaml, --disable-hot-restart, --concurrency, "2"]' MOUNTS=', { name: envoy, mountPath: /etc/envoy }' \
	VOLUMES=', { name: envoy, configMap: { name: envoy } }' \
	sidecar_pod envoy dns-names=envoy.test 'key-usages=digital signature,server auth' socket-file=socket "${lifetime[@]}" | k apply -f -
running envoy
IMAGE=$POD_IMAGE COMMAND="[mtls-peer, client, -connect, '$(k get pod envoy -o 'jsonpath={.status.podIP}'):8443', -server-name, envoy.test, -timeout, 110s]" \
	POD='restartPolicy: Never' sidecar_pod to-envoy 'key-usages=digital signature,client auth' common-name=to-envoy duration=1h | k apply -f -
running to-envoy

kill_sidecar() {
	local container
	container=$(k get pod "$1" -o json | jq -r '.status.initContainerStatuses[] | select(.name == "certlet") | .containerID | sub("containerd://"; "")')
	ctr -n k8s.io task kill -s SIGKILL "$container"
}
# The image of Envoy has no openssl.
serial_of() { if [ "$1" = envoy ]; then certlet_in envoy status --json | jq -r '.[0].issued_at'; else sidecar_serial "$1"; fi; }
for pod in server client envoy; do
	serial=$(serial_of $pod)
	count=$(request_of $pod .metadata.name | wc -l)
	restarts=$(sidecar_restarts $pod)
	kill_sidecar $pod
	back() { [ "$(sidecar_restarts "$pod")" -gt "$restarts" ] && certlet_in "$pod" health --readiness; }
	wait_for 30 back
	equal "the certificate of $pod after kill -9" "$(serial_of $pod)" "$serial"
	equal "the requests of $pod after kill -9" "$(request_of $pod .metadata.name | wc -l)" "$count"
	contains "why the sidecar of $pod ended" "$(ended_with $pod)" "137 "
done

# Meanwhile: directories that are refused.
EMPTY_DIR='' sidecar_pod disk common-name=disk | k apply -f -
no_tmpfs() { [[ $(ended_with disk) == *tmpfs* ]]; }
wait_for 60 no_tmpfs
echo "note: a directory on a disk: $(ended_with disk)"
wait_for 60 describes disk tmpfs
sidecar_pod foreign common-name=foreign |
	sed "s|^  initContainers:|&\n    - name: before\n      image: $POD_IMAGE\n      imagePullPolicy: IfNotPresent\n      command: [touch, /tls/tls.key]\n      securityContext: { $restricted }\n      volumeMounts: [{ name: certlet, mountPath: /tls }]|" |
	k apply -f -
is_refused() { [[ $(ended_with foreign) == [12]\ *tls.key* ]]; }
wait_for 60 is_refused
echo "note: a directory with another file: $(ended_with foreign)"

# The clients connected again: both have the renewed certificates.
ended() { [[ $(k get pod "$1" -o 'jsonpath={.status.phase}') =~ Succeeded|Failed ]]; }
renewed() { [ "$(k logs client -c main | grep '^{' | tail -n 1 | jq '[.peer_serials, .own_serials] | min')" -ge 2 ]; }
wait_for 100 renewed
for pod in server client envoy; do
	pid=$(sidecar_pid $pod)
	anonymous=$(awk '$1 == "RssAnon:" { print $2 }' "/proc/$pid/status")
	echo "note: sidecar of $pod: $(awk '/^(VmRSS|RssAnon|RssFile|RssShmem|Threads):/ { printf "%s %s%s, ", $1, $2, ($3 == "kB") ? " KiB" : "" }' "/proc/$pid/status")limit 32 MiB"
	[ "$anonymous" -lt $((8 * 1024)) ] || fail "the sidecar of $pod has $anonymous KiB of anonymous memory"
done
wait_for 150 ended client
counters=$(k logs client -c main | grep '^{' | tail -n 1)
echo "note: $counters"
equal "failed requests" "$(jq .failed <<<"$counters")" 0
equal "how the client's pod ended" "$(k get pod client -o 'jsonpath={.status.phase}')" Succeeded
wait_for 150 ended to-envoy
counters=$(k logs to-envoy -c main | grep '^{' | tail -n 1)
echo "note: Envoy: $counters"
equal "failed requests to Envoy" "$(jq .failed <<<"$counters")" 0
[ "$(jq .peer_serials <<<"$counters")" -ge 2 ] || fail "Envoy has not taken a renewed certificate"
# A certificate each at the start and at each renewal.
[ "$(request_of client .metadata.name | wc -l)" -le 4 ] || fail "too many requests: $(request_of client .metadata.name)"
