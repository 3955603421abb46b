#!/usr/bin/env bash
# certlet is killed, certlet is updated, the kubelet is restarted, and both at once. No pod loses a file, the number of mounts does
# not grow, and renewals continue.
# needs: certlet own-cluster
. "$(dirname "$0")/../lib.sh"

driver_pod() { kubectl -n certlet get pod -l app.kubernetes.io/instance=certlet -o name | head -n 1; }
driver_ready() { kubectl -n certlet rollout status daemonset/certlet --timeout=60s >/dev/null && kubectl -n certlet wait --for=condition=ready pod -l app.kubernetes.io/instance=certlet --timeout=60s >/dev/null; }
kill_driver() {
	local container
	container=$(kubectl -n certlet get "$(driver_pod)" -o 'jsonpath={.status.containerStatuses[0].containerID}')
	ctr -n k8s.io task kill -s SIGKILL "${container#containerd://}"
}
restarted() { kubectl -n certlet get "$(driver_pod)" -o json | jq -e --argjson n "$1" '.status.containerStatuses[0] | .ready and .restartCount > $n'; }
restarts() { kubectl -n certlet get "$(driver_pod)" -o 'jsonpath={.status.containerStatuses[0].restartCount}'; }

live_pods duration=30s renew-before=20s
unchanged() { still_live "$1" 30; }

count=$(restarts)
kill_driver
wait_for 60 restarted "$count"
unchanged "kill -9"

kubectl -n certlet rollout restart daemonset/certlet
driver_ready
unchanged "a rolling update"

ctl restart kubelet
unchanged "a restart of the kubelet"

count=$(restarts)
ctl stop kubelet
kill_driver
ctl start kubelet
wait_for 90 restarted "$count"
unchanged "both at once"
