# Where everything is. Sourced by each script here.
# shellcheck shell=bash disable=SC2034

E2E_CLUSTER=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
E2E=$(dirname "$E2E_CLUSTER")
# Built programs, kept between runs and checkouts.
E2E_CACHE=${CERTLET_E2E_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/certlet-e2e}
# The running cluster: programs, keys, node folders, logs. `down` removes it, and keeps the logs of failed cases.
E2E_HOME=${CERTLET_E2E_HOME:-$E2E/.run}
E2E_RUN=$E2E_HOME/cluster
E2E_FAILED=$E2E_HOME/failed
# The one node. Its address is on a bridge of the cluster's own network namespace.
E2E_NODE=node-1
E2E_NODE_IP=10.240.0.1
E2E_SERVICE_IP=10.96.0.1
# What runs in every cluster, in the order of starting.
E2E_PARTS=(etcd containerd apiserver controller-manager scheduler kubelet proxy cert-manager)

die() {
	echo "$*" >&2
	exit 1
}

# The first process of the running cluster, as seen from outside; fails when there is none.
cluster_init() {
	local init
	init=$(cat "$E2E_RUN/init" 2>/dev/null) && grep -qs node-init "/proc/$init/cmdline" && echo "$init"
}

# built PACKAGE: builds the release program of that name and prints where it is.
built() {
	cargo build --release --manifest-path "$E2E/../Cargo.toml" --package "$1" --bin "$1" --message-format=json-render-diagnostics |
		jq -r 'select(.executable != null).executable'
}

# new_namespace NAME: with the service account that its pods need.
new_namespace() {
	kubectl create namespace "$1" >/dev/null
	until kubectl -n "$1" get serviceaccount default >/dev/null 2>&1; do sleep 0.2; done
}
