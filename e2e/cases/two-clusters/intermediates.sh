#!/usr/bin/env bash
# One root for two clusters, an intermediate CA in each. Pods of both trust the root, by a ConfigMap in their own cluster.
# - Pods of each cluster talk mutual TLS with pods of the other while all certificates rotate. No request fails.
# - A server with another name, an expired certificate, a certificate of an unknown root: client and server refuse them. docs/trust.md
#   quotes the clients' errors.
# needs: certlet own-cluster second-cluster envoy
. "$(dirname "$0")/../../lib.sh"
. "$(dirname "$0")/../support/two-clusters.sh"

begin
authority root
authority stranger
for cluster in 1 2; do
	authority "site-$cluster" root
	on $cluster trust root
done
# A CA issuer's Secret may have the root after the intermediate, or not.
on 1 issuer site-1 root
on 2 issuer site-2
for cluster in 1 2; do
	on $cluster install
	on $cluster peer server "server.site-$cluster.test"
	COMMAND="sleep infinity" on $cluster peer client "client.site-$cluster.test"
done
for cluster in 1 2; do
	on $cluster running server client
	on $cluster wait_for 10 listens server 8443
	equal "certificates in tls.crt of cluster $cluster" "$(on $cluster in_pod server grep -c BEGIN /tls/tls.crt)" 2
	equal "ca.crt of cluster $cluster" "$(on $cluster in_pod server openssl x509 -in /tls/ca.crt -noout -subject)" "subject=CN = root"
done

# A pod whose certificate another CA signed.
DRIVER=csi.certlet.io on 1 certificate_pod stranger dns-names=client.site-1.test 'key-usages=digital signature,client auth' | on 1 k apply -f -
on 1 running stranger

# Copies for a program that never reads its files again.
for cluster in 1 2; do
	for pod in server client; do on $cluster in_pod $pod sh -c 'mkdir /tmp/old && cp -a /tls/. /tmp/old/'; done
	on $cluster in_pod server sh -c 'setsid mtls-peer server -dir /tmp/old -listen :8444 </dev/null >/dev/null 2>&1 &'
	on $cluster wait_for 10 listens server 8444
done

# Both ways, while the certificates rotate.
rotations() { # CLUSTER OF-THE-SERVER
	on "$1" in_pod client mtls-peer client -connect "$(on "$2" address server):8443" -server-name "server.site-$2.test" \
		-until-serials 4 -timeout 90s >"$work/from-$1" 2>&1
}
status=0
rotations 1 2 &
first=$!
rotations 2 1 || status=$?
wait $first || status=$?
for cluster in 1 2; do echo "note: requests from cluster $cluster: $(grep '^{' "$work/from-$cluster" | tail -n 1)"; done
[ $status = 0 ] || fail "requests failed: $(tail -n 1 "$work"/from-*)"

expired() { ! in_pod "$1" openssl x509 -in /tmp/old/tls.crt -noout -checkend 0; }
for pod in client server; do on 1 wait_for 30 expired $pod; done
on 2 wait_for 30 expired server

# The clients are in cluster 1, the servers in cluster 2.
on 1 put stranger "$work/root.crt" /tmp/root.crt
on 1 put client "$work/stranger.crt" /tmp/stranger.crt
server=$(on 2 address server)
name=server.site-2.test
refused "Go, another name" "x509: certificate is valid for $name, not other.test" on 1 asks client "$server:8443" other.test
refused "OpenSSL, another name" "ostname mismatch" on 1 openssl_asks client "$server:8443" other.test
refused "Go, expired server" "x509: certificate has expired or is not yet valid" on 1 asks client "$server:8444" $name
refused "OpenSSL, expired server" "certificate has expired" on 1 openssl_asks client "$server:8444" $name
refused "Go, expired client" "remote error: tls: expired certificate" on 1 asks client "$server:8443" $name -dir /tmp/old
refused "OpenSSL, expired client" "alert certificate expired" on 1 openssl_asks client "$server:8443" $name /tmp/old
refused "Go, server of an unknown root" "x509: certificate signed by unknown authority" on 1 asks client "$server:8443" $name -ca /tmp/stranger.crt
refused "OpenSSL, server of an unknown root" "unable to get local issuer certificate" on 1 openssl_asks client "$server:8443" $name /tls /tmp/stranger.crt
# Go sends no certificate if the server does not name its root.
refused "Go, client of an unknown root" "remote error: tls: certificate required" on 1 asks stranger "$server:8443" $name -ca /tmp/root.crt
refused "OpenSSL, client of an unknown root" "alert unknown ca" on 1 openssl_asks stranger "$server:8443" $name /tls /tmp/root.crt

# Envoy as the client of the same servers.
cluster() { # NAME PORT SERVER-NAME VALIDATION
	cat <<-YAML
		- name: $1
		  type: STATIC
		  load_assignment: { cluster_name: $1, endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: $server, port_value: $2 } } } }] }] }
		  transport_socket:
		    name: envoy.transport_sockets.tls
		    typed_config:
		      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
		      common_tls_context:
		        tls_params: { tls_maximum_protocol_version: TLSv1_3 }
		        tls_certificate_sds_secret_configs: [$(secret default)]
		        combined_validation_context:
		          default_validation_context: { match_typed_subject_alt_names: [{ san_type: DNS, matcher: { exact: $3 } }] }
		          validation_context_sds_secret_config: $4
	YAML
}
secret() { echo "{ name: $1, sds_config: { resource_api_version: V3, path_config_source: { path: ${2:-/tls/$1.yaml} } } }"; }
route() { echo "{ match: { prefix: /$1 }, route: { cluster: $1 } }"; }
jq -n --arg pem "$(cat "$work/stranger.crt")" '{resources: [{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", name: "stranger", validation_context: {trusted_ca: {inline_string: $pem}}}]}' >"$work/stranger.json"
cat >"$work/envoy.yaml" <<YAML
node: { id: client, cluster: client }
static_resources:
  listeners:
    - address: { socket_address: { address: 0.0.0.0, port_value: 8080 } }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: http
                access_log:
                  - name: envoy.access_loggers.stdout
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
                      log_format: { text_format_source: { inline_string: "%REQ(:PATH)% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n" } }
                route_config: { virtual_hosts: [{ name: all, domains: ["*"], routes: [$(route right), $(route name), $(route expired), $(route root)] }] }
                http_filters: [{ name: envoy.filters.http.router, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }]
  clusters:
$({ cluster right 8443 $name "$(secret ROOTCA)" && cluster name 8443 other.test "$(secret ROOTCA)" && cluster expired 8444 $name "$(secret ROOTCA)" &&
	cluster root 8443 $name "$(secret stranger /etc/envoy/stranger.json)"; } | sed 's/^/    /')
YAML
"$E2E_CLUSTER/image" envoy:1 "$E2E_RUN/bin/envoy"
on 1 k create configmap envoy --from-file="$work/envoy.yaml" --from-file="$work/stranger.json"
ISSUER=site-ca on 1 certificate_pod envoy dns-names=client.site-1.test 'key-usages=digital signature,client auth' layout=envoy |
	sed -e 's|image: .*|image: localhost/envoy:1|' -e 's|command: .*|command: [envoy, --config-path, /etc/envoy/envoy.yaml, --log-level, warning, --file-flush-interval-msec, "100"]|' \
		-e 's|mountPath: /tls, readOnly: true }|&, { name: config, mountPath: /etc/envoy }|' \
		-e 's|^  volumes:|&\n    - { name: config, configMap: { name: envoy } }|' | on 1 k apply -f -
on 1 running envoy
envoy_asks() { curl -s --max-time 10 "http://$(on 1 address envoy):8080/$1"; }
envoy_is_ready() { envoy_asks right | grep -qx "[0-9]*"; }
wait_for 20 envoy_is_ready
# The answer to the client says no more than "remote connection failure". The access log has the reason.
for fault in name expired root; do contains "Envoy's answer" "$(envoy_asks $fault)" "remote connection failure"; done
sleep 1
envoy_logs() { on 1 k logs envoy | grep "^/$1"; }
refused "Envoy, another name" "SAN_matcher" envoy_logs name
refused "Envoy, expired server" "certificate_has_expired" envoy_logs expired
refused "Envoy, server of an unknown root" "unable_to_get_local_issuer_certificate" envoy_logs root
