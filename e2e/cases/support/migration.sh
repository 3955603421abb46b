# What the cases share that replace another driver by certlet, while a client asks servers over mutual TLS. A case sources this file after
# lib.sh. Its client is the pod `client`, and its servers are those of start_servers.
# shellcheck shell=bash

# Makes the images of the two containers that run beside cert-manager's drivers.
peer_images() {
	"$E2E_CLUSTER/image" csi-node-driver-registrar:e2e "$E2E_RUN/bin/csi-node-driver-registrar"
	"$E2E_CLUSTER/image" livenessprobe:e2e "$E2E_RUN/bin/livenessprobe"
}

# What must stay as it is.
files() {
	local pod
	for pod in "${live[@]}"; do in_pod "$pod" sh -c 'cd /tls/..data/ && sha256sum *'; done
}
containers() { k get pods "${live[@]}" -o json | jq -r '.items[].status.containerStatuses[0] | .containerID, .restartCount'; }
mounts() { k get pods "${live[@]}" -o json | jq -r '.items[].metadata.uid' | grep -Ff - /proc/self/mountinfo | sort; }
requests_answered() { k logs client | grep '^{' | tail -n 1; }
more_answered() { [ "$(requests_answered | jq .ok)" -gt "$1" ]; }
no_request_failed() {
	local ok
	ok=$(requests_answered | jq .ok)
	wait_for 30 more_answered "$ok"
	equal "failed requests after $1: $(requests_answered)" "$(requests_answered | jq .failed)" 0
}
# remember POD...: these pods must stay as they are now.
remember() {
	live=("$@")
	live_files=$(files)
	live_containers=$(containers)
	live_mounts=$(mounts)
}
unchanged() { # WHAT
	wait_for 30 in_pod client true # a kubelet that has just started does not know its pods yet
	equal "the files after $1" "$(files)" "$live_files"
	equal "the containers after $1" "$(containers)" "$live_containers"
	equal "the mounts after $1" "$(mounts)" "$live_mounts"
	no_request_failed "$1"
}
servers() { k get pods -l app=server -o 'jsonpath={.items[*].metadata.name}'; }
two_servers() { [ "$(servers | wc -w)" = 2 ]; }
restart_servers() {
	k rollout restart deployment/server
	k rollout status deployment/server --timeout=120s
	wait_for 60 two_servers
}

# start_servers: makes what server_deployment prints, and waits until the Service forwards to it.
start_servers() {
	server_deployment | k apply -f -
	k rollout status deployment/server --timeout=60s
	wait_for 30 connects "$(server_address)"
}
connects() { timeout 1 bash -c ": </dev/tcp/${1/://}"; }

# running_command COMMAND...: the pod on stdin with that command.
running_command() { sed -e "s|command: .*|command: [$(printf '"%s", ' "$@")]|"; }
# server_deployment: prints a Deployment of two servers and its Service. The pod on stdin is the template; its label is app=server.
server_deployment() {
	cat <<-YAML
		apiVersion: apps/v1
		kind: Deployment
		metadata: { name: server }
		spec:
		  replicas: 2
		  selector: { matchLabels: { app: server } }
		  strategy: { rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } }
		  template:
	YAML
	# It answers requests until its address has left the Service.
	sed -e '/^apiVersion\|^kind/d' -e 's/terminationGracePeriodSeconds: 1/terminationGracePeriodSeconds: 20/' -e 's/^/    /' \
		-e 's|^\( *\)command:.*|&\n\1readinessProbe: { tcpSocket: { port: 8443 }, periodSeconds: 1 }\n\1lifecycle: { preStop: { sleep: { seconds: 5 } } }|'
	cat <<-YAML
		---
		apiVersion: v1
		kind: Service
		metadata: { name: server }
		spec: { selector: { app: server }, ports: [{ port: 8443 }] }
	YAML
}
server_address() { echo "$(k get service server -o 'jsonpath={.spec.clusterIP}'):8443"; }
