#!/usr/bin/env bash
# A node is tainted until its driver is ready. A pod with a certificate waits for the driver, and the driver removes the taint.
# needs: certlet own-cluster
. "$(dirname "$0")/../lib.sh"

export DRIVER=taint.csi.certlet.io
taint=certlet.io/not-ready
cleanup() {
	kubectl taint node "$E2E_NODE" $taint- || true
	helm_end taint
}
trap cleanup EXIT
kubectl taint node "$E2E_NODE" $taint=:NoSchedule
certificate_pod app common-name=app | k apply -f -
says_why() { k get pod app -o json | jq -e '.status.conditions[] | select(.type == "PodScheduled" and .reason == "Unschedulable")'; }
wait_for 30 says_why

helm_install taint $DRIVER --set "startupTaint.enabled=true,requesters.namespaces={$NS}"
untainted() { ! kubectl get node "$E2E_NODE" -o 'jsonpath={.spec.taints[*].key}' | grep -q $taint; }
wait_for 30 untainted
k wait --for=condition=ready pod/app --timeout=60s
# No mount had to be tried again.
equal "mounts that failed" "$(k get events --field-selector involvedObject.name=app,reason=FailedMount -o name | wc -l)" 0

# The node is tainted again while the driver runs, as when it registers again. The driver's next start removes the taint.
kubectl taint node "$E2E_NODE" $taint=:NoSchedule
k rollout restart daemonset/taint
k rollout status daemonset/taint --timeout=90s
wait_for 30 untainted
