#!/usr/bin/env bash
# A pod deleted while its publish waits, a namespace deleted, pods force-deleted while certlet is down: nothing of them
# is left.
# needs: certlet own-cluster
# limit: 500
. "$(dirname "$0")/../lib.sh"

# What belongs to no pod of the cluster: mounts at its targets, and volumes in the store without a record that names one.
uids() { kubectl get pods -A -o 'jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}'; }
left() {
	local uids volume
	uids=$(uids)
	grep -e 'kubernetes.io~csi' /proc/mounts | grep -vF -e "$uids" || true
	for volume in /var/lib/kubelet/plugins/csi.certlet.io/data/volumes/*/ /var/lib/kubelet/plugins/csi.certlet.io/data/volumes/.trash-*; do
		[ ! -e "$volume" ] || grep -qsF -e "$uids" "$volume/record.json" || echo "$volume"
	done
}
nothing_left() { [ -z "$(left)" ]; }
gone() { wait_for "$1" nothing_left; }
gone 120 # what earlier cases' pods have left behind

# Deleted while it waits for an issuer that never comes.
ISSUER=never certificate_pod waiting common-name=a | k apply -f -
wait_for 30 has_requests 1
k delete pod waiting --wait --timeout=150s # the kubelet first lets the publish come to its end, two minutes at most
wait_for 30 has_requests 0
gone 30

# A namespace with everything in it.
other=$NS-other
kubectl create namespace "$other"
for n in 1 2 3; do certificate_pod app-$n common-name=a | kubectl -n "$other" apply -f -; done
kubectl -n "$other" wait --for=condition=ready pod --all --timeout=60s
kubectl delete namespace "$other" --timeout=60s
gone 30

# Force-deleted while certlet is down.
for n in 1 2 3; do certificate_pod app-$n common-name=a | k apply -f -; done
running app-1 app-2 app-3
only_on() { kubectl -n certlet patch daemonset certlet --type=merge -p "{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"nowhere\":$1}}}}}"; }
trap 'only_on null' EXIT
only_on '"true"'
kubectl -n certlet wait --for=delete pod -l app.kubernetes.io/instance=certlet --timeout=60s
k delete pod --all --grace-period=0 --force
sleep 5
only_on null
kubectl -n certlet rollout status daemonset/certlet --timeout=60s
gone 180
wait_for 30 has_requests 0
