#!/usr/bin/env bash
# A mesh whose workload certificates are certlet's: Istio's control plane, injector and agent as they are published, Envoy 1.40, and
# the injection templates of examples/istio. mTLS is STRICT.
# - Sidecars (native ones) and a gateway have certlet's identities, over the socket and from files. An AuthorizationPolicy that names
#   one lets it pass, and refuses another. So does the mesh refuse a pod without a certificate, and one with istiod's certificate.
# - No request fails while the certificates rotate, and while the driver is killed with SIGKILL.
# - After pilot-agent is killed, its pod is served again with the same volume.
# There is no DNS: clients call services by their addresses, and /etc/hosts names istiod. Envoy lacks Istio's own filters, so
# telemetry and metadata exchange are off, and so is the filter that sets ALPN.
# needs: certlet own-cluster helm istio envoy
# limit: 900
. "$(dirname "$0")/../lib.sh"

istio=$E2E_RUN/share/istio
example=$E2E/../examples/istio
end() {
	local status=$?
	if [ $status != 0 ]; then
		for pod in $(k get pods -o name); do k logs "$pod" --all-containers --prefix --tail=200; done || true
		kubectl -n istio-system logs deployment/istiod --tail=300 || true
	fi
	k delete pods --all --timeout=60s || true
	helm uninstall istiod --namespace istio-system || true
	kubectl delete namespace istio-system --timeout=60s || true
	kubectl delete clusterissuer mesh-ca || true
	kubectl -n cert-manager delete secret mesh-ca || true
	return $status
}
trap end EXIT

# The control plane.
"$E2E_CLUSTER/image" pilot:1 "$E2E_RUN/bin/pilot-discovery"
proxy=("$E2E_RUN/bin/pilot-agent" "$E2E_RUN/bin/envoy:/usr/local/bin/envoy" "$istio/envoy_bootstrap.json:/var/lib/istio/envoy/envoy_bootstrap_tmpl.json")
for program in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do proxy+=("/usr/sbin/$program"); done
plugins=/usr/lib/$(uname -m)-linux-gnu/xtables
"$E2E_CLUSTER/image" proxyv2:1 "${proxy[@]}" "$plugins:$plugins"
# The clients use curl, because busybox's wget crashed here with SIGSEGV.
export POD_IMAGE=localhost/mesh-pod:1
"$E2E_CLUSTER/image" mesh-pod:1 "$(command -v busybox)" "$(command -v curl)"
kubectl apply --server-side -f "$istio/base/files/crd-all.gen.yaml" >/dev/null
values=$(mktemp)
sed 's/duration: 24h/duration: 45s/' "$example/istiod-values.yaml" >"$values" # a rotation each half minute
helm install istiod "$istio/istio-control/istio-discovery" --namespace istio-system --create-namespace \
	--values "$E2E/cases/support/istiod-values.yaml" --values "$values" >/dev/null
rm "$values"
# Istio's image names a user, and the chart relies on it.
kubectl -n istio-system patch deployment istiod --patch '{"spec":{"template":{"spec":{"securityContext":{"runAsUser":1337}}}}}'
kubectl -n istio-system rollout status deployment/istiod --timeout=120s
istiod=$(kubectl -n istio-system get service istiod -o 'jsonpath={.spec.clusterIP}')

# The certificates' issuer: a CA of its own, which istiod does not know.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=mesh-ca -keyout /dev/fd/3 -out /dev/fd/4 3>"$E2E_RUN/tmp/mesh.key" 4>"$E2E_RUN/tmp/mesh.crt" 2>/dev/null
kubectl -n cert-manager create secret tls mesh-ca --cert="$E2E_RUN/tmp/mesh.crt" --key="$E2E_RUN/tmp/mesh.key"
kubectl apply -f - <<'YAML'
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: { name: mesh-ca }
spec: { ca: { secretName: mesh-ca } }
YAML

# The workloads. The server answers with what its proxy says of the client. Each request makes a TLS connection of its own.
kubectl label namespace "$NS" istio-injection=enabled
id=spiffe://cluster.local/ns/$NS/sa
k create configmap www --from-literal=peer='#!/bin/sh
printf "Content-Type: text/plain\r\n\r\n%s\n" "$HTTP_X_FORWARDED_CLIENT_CERT"'
for account in server server-files client client-files stranger gateway; do k create serviceaccount $account; done
for server in server server-files; do
	k apply -f - <<-YAML
		apiVersion: v1
		kind: Service
		metadata: { name: $server }
		spec: { selector: { app: $server }, ports: [{ name: http, port: 8080 }] }
		---
		apiVersion: networking.istio.io/v1
		kind: DestinationRule
		metadata: { name: $server }
		spec: { host: $server, trafficPolicy: { connectionPool: { http: { maxRequestsPerConnection: 1 } } } }
		---
		apiVersion: security.istio.io/v1
		kind: AuthorizationPolicy
		metadata: { name: $server }
		spec:
		  selector: { matchLabels: { app: $server } }
		  action: ALLOW
		  rules:
		    - from: [{ source: { principals: [cluster.local/ns/$NS/sa/client, cluster.local/ns/$NS/sa/client-files, cluster.local/ns/$NS/sa/gateway] } }]
	YAML
done
k apply -f - <<YAML
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: strict }
spec: { mtls: { mode: STRICT } }
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: { name: gateway }
spec: { selector: { istio: gateway }, servers: [{ port: { number: 8080, name: http, protocol: HTTP }, hosts: ["*"] }] }
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: gateway }
spec: { hosts: ["*"], gateways: [gateway], http: [{ route: [{ destination: { host: server } }] }] }
YAML

# meshed NAME ACCOUNT TEMPLATES COMMAND: a pod into which the injector puts a proxy.
meshed() {
	k apply -f - <<-YAML
		apiVersion: v1
		kind: Pod
		metadata: { name: $1, labels: { app: $1 }, annotations: { inject.istio.io/templates: "$3" } }
		spec:
		  serviceAccountName: $2
		  terminationGracePeriodSeconds: 1
		  hostAliases: [{ ip: $istiod, hostnames: [istiod.istio-system.svc] }]
		  containers: [{ name: main, image: $POD_IMAGE, imagePullPolicy: IfNotPresent, command: [sh, -c, '$4'], volumeMounts: [{ name: www, mountPath: /www/cgi-bin }] }]
		  volumes: [{ name: www, configMap: { name: www, defaultMode: 0755 } }]
	YAML
}
serve='exec httpd -f -p 8080 -h /www'
# Prints a line for each request: ok SERVER WHAT-THE-SERVER-SAYS, or failed SERVER.
call='ask() { if answer=$(curl -sS --fail-with-body --max-time 10 "http://$2:8080/cgi-bin/peer" 2>&1); then echo "ok $1 $answer"; else echo "failed $1 $answer"; fi; };
until [ -e /tmp/go ]; do sleep 1; done;
while true; do ask server $SERVER_SERVICE_HOST; ask server-files $SERVER_FILES_SERVICE_HOST; sleep 0.3; done'
meshed server server sidecar,certlet "$serve"
meshed server-files server-files sidecar,certlet-files "$serve"
meshed client client sidecar,certlet "$call"
meshed client-files client-files sidecar,certlet-files "$call"
meshed stranger stranger sidecar,certlet "sleep infinity"
meshed istio client sidecar "sleep infinity" # an account that may call, with istiod's certificate
k apply -f - <<YAML
apiVersion: v1
kind: Pod
metadata: { name: gateway, labels: { istio: gateway, sidecar.istio.io/inject: "true" }, annotations: { inject.istio.io/templates: "gateway,certlet" } }
spec:
  serviceAccountName: gateway
  terminationGracePeriodSeconds: 1
  hostAliases: [{ ip: $istiod, hostnames: [istiod.istio-system.svc] }]
  containers: [{ name: istio-proxy, image: auto, imagePullPolicy: IfNotPresent }]
---
apiVersion: v1
kind: Pod
metadata: { name: plain, labels: { sidecar.istio.io/inject: "false" } }
spec:
  terminationGracePeriodSeconds: 1
  containers: [{ name: main, image: $POD_IMAGE, imagePullPolicy: IfNotPresent, command: [sleep, infinity] }]
YAML
k wait --for=condition=ready pod --all --timeout=180s

address() { k get service "$1" -o 'jsonpath={.spec.clusterIP}'; }
ask() { # POD SERVER: prints the answer; the status is curl's.
	in_pod "$1" curl -sS --fail-with-body --max-time 10 "http://$(address "$2"):8080/cgi-bin/peer" 2>&1
}
refused() { # POD SERVER TEXT: the pod's request fails, for that reason.
	local answer
	if answer=$(ask "$1" "$2"); then fail "$1 was served by $2: $answer"; fi
	contains "why $2 refused $1" "$answer" "$3"
}
agent() { # POD: its agent's log
	k logs "$1" --container istio-proxy
}

equal "where the sidecar is" "$(k get pod server -o 'jsonpath={.spec.initContainers[?(@.name=="istio-proxy")].restartPolicy}')" Always
contains "the agent of a pod with a socket" "$(agent server)" "Existing workload SDS socket found"
contains "the agent of a pod with files" "$(agent server-files)" "workload certificate files detected"
for server in server server-files; do
	for client in client client-files; do
		wait_for 30 ask $client $server
		answer=$(ask $client $server)
		contains "the client, for $server" "$answer" "URI=$id/$client"
		contains "the server, for $client" "$answer" "By=$id/$server"
	done
	refused stranger $server "RBAC: access denied"
	refused plain $server "reset by peer"
	refused istio $server "remote connection failure"
done
through_gateway() { in_pod plain curl -sS --fail-with-body --max-time 10 "http://$(k get pod gateway -o 'jsonpath={.status.podIP}'):8080/cgi-bin/peer"; }
wait_for 30 through_gateway
contains "the client behind the gateway" "$(through_gateway)" "URI=$id/gateway"

# Rotations under traffic, and a driver that is killed.
for client in client client-files; do in_pod $client touch /tmp/go; done
lines() { k logs "$1" --container main; } # POD
rotations() { # CLIENT SERVER: certificates of the client that the server has seen
	lines "$1" | sed -n "s/^ok $2 .*Hash=\([0-9a-f]*\).*/\1/p" | sort -u | wc -l
}
seen() { # NUMBER: every server has seen as many certificates of every client.
	local client server
	for client in client client-files; do
		for server in server server-files; do [ "$(rotations $client $server)" -ge "$1" ] || return 1; done
	done
}
none_failed() { # WHEN
	local client
	for client in client client-files; do
		equal "failed requests of $client $1" "$(lines $client | grep -v '^ok .*URI=')" ""
	done
}
wait_for 200 seen 4
none_failed "during the rotations"
driver=$(kubectl -n certlet get pod -l app.kubernetes.io/instance=certlet -o name | head -n 1)
container_of() { kubectl -n "$1" get "$2" -o json | jq -r --arg name "$3" '.status | .containerStatuses + (.initContainerStatuses // []) | .[] | select(.name == $name) | .containerID | sub("containerd://"; "")'; }
restarts_of() { kubectl -n "$1" get "$2" -o json | jq -r --arg name "$3" '.status | .containerStatuses + (.initContainerStatuses // []) | .[] | select(.name == $name and .ready) | .restartCount'; }
restarted() { [ "$(restarts_of "$1" "$2" "$3")" -gt "$4" ]; }
kill_container() { # NAMESPACE POD CONTAINER: kills its first process and waits until it is ready again.
	local count
	count=$(restarts_of "$1" "$2" "$3")
	ctr -n k8s.io task kill -s SIGKILL "$(container_of "$1" "$2" "$3")"
	wait_for 120 restarted "$1" "$2" "$3" "$count"
}
kill_container certlet "$driver" certlet
more=$(($(rotations client server) + 3))
wait_for 200 seen $more
none_failed "after the driver was killed"
echo "note: $(lines client | wc -l) + $(lines client-files | wc -l) requests, $(rotations client server) certificates of the client, none failed"

# The agent is killed: its new process finds the same volume.
for pod in server client-files; do
	kill_container "$NS" pod/$pod istio-proxy
	contains "the new agent of $pod" "$(agent $pod)" "Envoy proxy is ready"
done
contains "the new agent of the server" "$(agent server)" "Existing workload SDS socket found"
wait_for 60 ask client server
contains "the server after its agent was killed" "$(ask client server)" "By=$id/server;"
wait_for 60 ask client-files server
contains "the client after its agent was killed" "$(ask client-files server)" "URI=$id/client-files"
refused stranger server "RBAC: access denied"
