# Paths, names and functions that all scripts here share. Each script sources this file.
# shellcheck shell=bash disable=SC2034

E2E_CLUSTER=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
E2E=$(dirname "$E2E_CLUSTER")
# Built programs. They stay between runs, and checkouts share them.
E2E_CACHE=${CERTLET_E2E_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/certlet-e2e}
# The running clusters and the logs of failed cases.
E2E_HOME=${CERTLET_E2E_HOME:-$E2E/.run}
E2E_FAILED=$E2E_HOME/failed
# Which cluster the scripts work on. With 2 it is the second one, for cases that need two (see link).
E2E_NUMBER=${CERTLET_E2E_CLUSTER:-1}
# The running cluster: programs, keys, node folders, logs. `down` removes it, but not the logs of failed cases.
E2E_RUN=$E2E_HOME/cluster
if [ "$E2E_NUMBER" != 1 ]; then E2E_RUN+=-$E2E_NUMBER; fi
# All pods of a cluster are under one cgroup, so that `down` knows what to remove.
E2E_CGROUP=e2e-$(cksum <<<"$E2E_RUN" | cut -d' ' -f1)
# The one node. Its address is on a bridge of the cluster's own network namespace.
E2E_NODE=node-$E2E_NUMBER
E2E_NODE_IP=10.240.$((E2E_NUMBER - 1)).1
E2E_POD_CIDR=10.$((243 + E2E_NUMBER)).0.0/16
E2E_SERVICE_IP=10.96.0.1
# The parts that run in every cluster, in the order in which they start.
E2E_PARTS=(etcd containerd apiserver controller-manager scheduler kubelet proxy cert-manager)

die() {
	echo "$*" >&2
	exit 1
}

# Prints the process id, outside the cluster, of the cluster's first process. Fails when no cluster is running.
cluster_init() {
	local init
	init=$(cat "$E2E_RUN/init" 2>/dev/null) && grep -qs node-init "/proc/$init/cmdline" && echo "$init"
}

# built PACKAGE: builds the release program of that name and prints its path.
built() {
	cargo build --release --manifest-path "$E2E/../Cargo.toml" --package "$1" --bin "$1" --message-format=json-render-diagnostics |
		jq -r 'select(.executable != null).executable'
}

# new_namespace NAME: creates a namespace, and waits for the service account that its pods need.
new_namespace() {
	kubectl create namespace "$1" >/dev/null
	until kubectl -n "$1" get serviceaccount default >/dev/null 2>&1; do sleep 0.2; done
}
