#!/usr/bin/env bash
# A pod is deleted while its publish waits, a namespace is deleted, and pods are force-deleted while certlet is down. Nothing of them
# is left.
# needs: certlet own-cluster
# limit: 500
. "$(dirname "$0")/../lib.sh"

# left: prints what is left of the pods whose uids are in `uids`: mounts, directories of the kubelet, and volumes in the store. It
# ignores volumes that were in the store before: after a final refusal a volume is removed only ten minutes later.
uids=$(mktemp)
volumes() { ls -A /var/lib/kubelet/plugins/csi.certlet.io/data/volumes; }
left() {
	grep -Ff "$uids" /proc/mounts || true
	ls /var/lib/kubelet/pods | grep -Ff "$uids" || true
	volumes | grep -vxFf <(echo "$before") || true
}
before=$(volumes)
nothing_left() { [ -z "$(left)" ]; }
remember() { kubectl -n "$1" get pods -o 'jsonpath={range .items[*]}{.metadata.uid}{"\n"}{end}' >>"$uids"; }

# A pod is deleted while it waits for an issuer that does not exist.
ISSUER=never certificate_pod waiting common-name=a | k apply -f -
wait_for 30 has_requests 1
remember "$NS"
[ -n "$(left)" ] || fail "the waiting publish has left no trace to check for"
k delete pod waiting --wait --timeout=150s # the kubelet first waits for the publish to end, two minutes at most
wait_for 30 has_requests 0
wait_for 30 nothing_left

# A namespace is deleted with everything in it.
other=$NS-other
kubectl create namespace "$other"
for n in 1 2 3; do certificate_pod app-$n common-name=a | kubectl -n "$other" apply -f -; done
kubectl -n "$other" wait --for=condition=ready pod --all --timeout=60s
remember "$other"
kubectl delete namespace "$other" --timeout=60s
wait_for 30 nothing_left

# Pods are force-deleted while certlet is down.
for n in 1 2 3; do certificate_pod app-$n common-name=a | k apply -f -; done
running app-1 app-2 app-3
remember "$NS"
only_on() { kubectl -n certlet patch daemonset certlet --type=merge -p "{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"nowhere\":$1}}}}}"; }
trap 'only_on null; rm -f "$uids"' EXIT
only_on '"true"'
kubectl -n certlet wait --for=delete pod -l app.kubernetes.io/instance=certlet --timeout=60s
k delete pod --all --grace-period=0 --force
sleep 5
only_on null
kubectl -n certlet rollout status daemonset/certlet --timeout=60s
wait_for 180 nothing_left
wait_for 30 has_requests 0
