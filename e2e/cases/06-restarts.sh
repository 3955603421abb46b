#!/usr/bin/env bash
# certlet killed, rolled over, the kubelet restarted, and both at once: no pod loses a file, no mount piles up, and
# renewal goes on.
# needs: certlet own-cluster
. "$(dirname "$0")/../lib.sh"

driver_pod() { kubectl -n certlet get pod -l app=certlet -o name | head -n 1; }
driver_ready() { kubectl -n certlet rollout status daemonset/certlet --timeout=60s >/dev/null && kubectl -n certlet wait --for=condition=ready pod -l app=certlet --timeout=60s >/dev/null; }
# Of this case's pods: others may still be on their way out.
mounts() { k get pods -l 'app!=after' -o 'jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}' | grep -cFf - /proc/mounts; }
kill_driver() {
	local container
	container=$(kubectl -n certlet get "$(driver_pod)" -o 'jsonpath={.status.containerStatuses[0].containerID}')
	ctr -n k8s.io task kill -s SIGKILL "${container#containerd://}"
}
restarted() { kubectl -n certlet get "$(driver_pod)" -o json | jq -e --argjson n "$1" '.status.containerStatuses[0] | .ready and .restartCount > $n'; }
restarts() { kubectl -n certlet get "$(driver_pod)" -o 'jsonpath={.status.containerStatuses[0].restartCount}'; }

for n in 1 2 3; do certificate_pod app-$n common-name=app-$n duration=1h | k apply -f -; done
certificate_pod renewing common-name=renewing duration=30s renew-before=20s | k apply -f -
running app-1 app-2 app-3 renewing
files() { for n in 1 2 3; do in_pod app-$n sha256sum /tls/tls.crt /tls/tls.key /tls/ca.crt; done; }
before=$(files)
mounted=$(mounts)
mounted_as_before() { [ "$(mounts)" = "$mounted" ]; }
unchanged() {
	wait_for 30 in_pod app-3 true # a kubelet that has just started knows no pod yet
	equal "the files after $1" "$(files)" "$before"
	wait_for 30 mounted_as_before # the kubelet may still be clearing up after a pod that is gone
	local last
	last=$(serial renewing)
	renewed() { [ "$(serial renewing)" != "$last" ]; }
	wait_for 30 renewed
	certificate_pod after common-name=after | k apply -f -
	running after
	k delete pod after --wait >/dev/null
	wait_for 20 has_requests 4
}

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
