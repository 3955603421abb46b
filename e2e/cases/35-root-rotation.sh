#!/usr/bin/env bash
# A root is rotated under load: A, then A and B, then B alone. Clients open a connection each 10 ms: with files (mtls-peer), to an Envoy
# that has its secrets by SDS, and with go-spiffe. The trust bundle is trust-manager's ConfigMap in the pods' namespace, the issuer a CA
# of cert-manager. No handshake fails. Then the issuer is switched first, which is the wrong order: certificates are held back, that is
# told, and no handshake fails either.
# needs: own-cluster certlet trust-manager envoy spiffe-peer
# limit: 480
. "$(dirname "$0")/../lib.sh"

export DRIVER=rotation.csi.certlet.io ISSUER=rotating
work=$(mktemp -d)
end() {
	local status=$?
	if [ $status != 0 ]; then
		for pod in $(k get pods -l '!app.kubernetes.io/instance' -o name); do k logs "$pod" --prefix --tail=20; done || true
		k exec daemonset/rotation -- certlet status || true
	fi
	helm_end rotation
	kubectl delete bundle e2e-rotation --ignore-not-found
	ctl stop trust-manager
	kubectl delete clusterissuer rotating --ignore-not-found
	kubectl -n cert-manager delete secret rotating-a rotating-b --ignore-not-found
	rm -rf "$work"
	return $status
}
trap end EXIT

# The two roots, and an issuer that signs with the first.
for root in a b; do
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=rotating-$root" -keyout "$work/$root.key" \
		-out "$work/$root.crt" 2>/dev/null
	kubectl -n cert-manager create secret tls "rotating-$root" --cert="$work/$root.crt" --key="$work/$root.key"
done
sign_with() {
	kubectl apply -f - <<-YAML
		apiVersion: cert-manager.io/v1
		kind: ClusterIssuer
		metadata: { name: rotating }
		spec: { ca: { secretName: rotating-$1 } }
	YAML
}
sign_with a
kubectl apply -f "$E2E_RUN/share/trust-manager/crds" >/dev/null
kubectl wait --for=condition=established crd/bundles.trust.cert-manager.io --timeout=30s
ctl start trust-manager
trust() { # ROOT...: what trust-manager hands out.
	local sources=() root
	for root; do sources+=("{ secret: { name: rotating-$root, key: tls.crt } }"); done
	kubectl apply -f - <<-YAML
		apiVersion: trust.cert-manager.io/v1alpha1
		kind: Bundle
		metadata: { name: e2e-rotation }
		spec:
		  sources: [$(IFS=,; echo "${sources[*]}")]
		  target:
		    configMap: { key: ca.crt }
		    namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: $NS } }
	YAML
}
trust a
wait_for 30 k get configmap e2e-rotation

helm_install rotation $DRIVER --set "spiffe.trustDomain=foo.bar,trust.configMapNames={e2e-rotation}"
k create rolebinding requester --clusterrole=rotation-requester --group="system:serviceaccounts:$NS"
status() { k exec daemonset/rotation -- certlet status; }

# The pods. A certificate lives for a minute and is renewed every ten seconds or so.
short=(duration=60s renew-before=50s ca-source=configmap:e2e-rotation)
usages='key-usages=digital signature,server auth,client auth'
run() { # COMMAND...: sets the pod's command.
	local words
	words=$(printf ', "%s"' "$@")
	sed -e "s|command: .*|command: [${words#, }]|" -e 's|^spec:|&\n  restartPolicy: Never|' | k apply -f -
}
address() { k get pod "$1" -o 'jsonpath={.status.podIP}'; }

certificate_pod server "dns-names=server.test" "$usages" "${short[@]}" | run mtls-peer server
certificate_pod envoy "dns-names=envoy.test" "$usages" "${short[@]}" socket-file=sds.sock >"$work/envoy.yaml"
certificate_pod spiffe-server spiffe=true socket-file=spiffe.sock "${short[@]}" >"$work/spiffe-server.yaml"
"$E2E_CLUSTER/image" envoy-peer:1 "$E2E_RUN/bin/envoy" "$(command -v busybox)"
"$E2E_CLUSTER/image" spiffe-peer:1 "$E2E_RUN/bin/spiffe-peer" "$(command -v busybox)"
secret() { echo "{ name: $1, sds_config: { resource_api_version: V3, api_config_source: { api_type: GRPC, transport_api_version: V3, grpc_services: [{ envoy_grpc: { cluster_name: sds } }] } } }"; }
cat >"$work/envoy.config" <<YAML
static_resources:
  listeners:
    - address: { socket_address: { address: 0.0.0.0, port_value: 8443 } }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: http
                route_config: { virtual_hosts: [{ name: all, domains: ["*"], routes: [{ match: { prefix: / }, direct_response: { status: 200, body: { inline_string: "0\n" } } }] }] }
                http_filters: [{ name: envoy.filters.http.router, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }]
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              common_tls_context:
                tls_params: { tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }
                tls_certificate_sds_secret_configs: [$(secret default)]
                validation_context_sds_secret_config: $(secret ROOTCA)
  clusters:
    - name: sds
      type: STATIC
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }
      load_assignment: { cluster_name: sds, endpoints: [{ lb_endpoints: [{ endpoint: { address: { pipe: { path: /tls/sds.sock } } } }] }] }
YAML
k create configmap envoy --from-file="envoy.yaml=$work/envoy.config"
sed -e "s|image: .*|image: localhost/envoy-peer:1|" -e 's|mountPath: /tls, readOnly: true }|&, { name: config, mountPath: /etc/envoy }|' \
	-e 's|^  volumes:|&\n    - { name: config, configMap: { name: envoy } }|' "$work/envoy.yaml" |
	run envoy -c /etc/envoy/envoy.yaml --concurrency 1 -l warning --service-node envoy --service-cluster envoy
id() { echo "spiffe://foo.bar/ns/$NS/sa/default"; }
spiffe() { sed "s|image: .*|image: localhost/spiffe-peer:1|"; }
spiffe <"$work/spiffe-server.yaml" | run spiffe-peer server -peer "$(id)"
running server envoy spiffe-server
listens() { in_pod "$1" busybox sh -c "busybox netstat -ltn | grep -q :8443"; }
for server in server envoy spiffe-server; do wait_for 30 listens $server; done
for server in server envoy; do
	certificate_pod "to-$server" "dns-names=client.test" "$usages" "${short[@]}" |
		run mtls-peer client -connect "$(address $server):8443" -server-name $server.test -interval 10ms -timeout 10m
done
certificate_pod to-spiffe-server spiffe=true socket-file=spiffe.sock "${short[@]}" | spiffe |
	run spiffe-peer client -peer "$(id)" -connect "$(address spiffe-server):8443"
clients=(to-server to-envoy to-spiffe-server)
running "${clients[@]}"

counters() { k logs "$1" | grep '^{' | tail -n 1; }
called() { [ "$(counters "$1" | jq .ok)" -gt "$2" ]; }
none_failed() { # WHEN
	local client
	for client in "${clients[@]}"; do
		equal "failed handshakes of $client, $1" "$(counters "$client" | jq .failed)" 0
	done
}
all() { # ROOT...: whether exactly these roots are in each pod's ca.crt, in whatever order.
	local pod roots
	for pod in server envoy spiffe-server "${clients[@]}"; do
		roots=$(in_pod "$pod" busybox cat /tls/ca.crt)
		[ "$(grep -c BEGIN <<<"$roots")" = $# ] || return 1
		for root; do [[ $roots == *"$(cat "$work/$root.crt")"* ]] || return 1; done
	done
}
leads_only_to() { status | grep -q "^CN=rotating-$1 " && ! status | grep -q "^CN=rotating-$2 "; }
for client in "${clients[@]}"; do wait_for 60 called "$client" 100; done
none_failed "before"
status | grep '^CN=rotating-a .* not before '

# The right order.
trust a b
wait_for 60 all a b
sign_with b
wait_for 60 leads_only_to b a
none_failed "while the issuer was switched"
trust b
wait_for 60 all b
sleep 3
none_failed "after the old root was removed"

# The wrong order: the issuer first. What pods have stays.
sign_with a
is_held_back() { status | grep -q "held back, because its root (CN=rotating-a) is not in the trust bundle"; }
wait_for 40 is_held_back
events_say server "held back" || wait_for 10 events_say server "held back"
sleep 5
none_failed "while certificates were held back"
trust a b
wait_for 60 leads_only_to a b
none_failed "after the wrong order was put right"
for client in "${clients[@]}"; do echo "note: $client $(counters "$client")"; done
