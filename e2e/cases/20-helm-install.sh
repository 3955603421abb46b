#!/usr/bin/env bash
# `helm install` with only a driver name gives pods certificates, which are requested as the pods' own service account. After an
# uninstall a running pod keeps its files. After another install it can be deleted. Then the same chart is installed with every
# optional part on.
# needs: certlet prometheus
# limit: 500
. "$(dirname "$0")/../lib.sh"

export DRIVER=helm.csi.certlet.io
trap 'helm_end fresh' EXIT
helm_install fresh $DRIVER
equal "pods of the DaemonSet that are ready" "$(k get daemonset fresh -o 'jsonpath={.status.numberReady}')" "$(kubectl get nodes -o name | wc -l)"

# If the pod's service account has no permission, an Event says what is missing. A binding to the chart's role fixes it.
certificate_pod app common-name=app | k apply -f -
says_what_is_missing() { k get events --field-selector involvedObject.name=app -o json | jq -e '[.items[].message | select(contains("certificaterequests"))] | length > 0'; }
wait_for 60 says_what_is_missing
k create rolebinding requester --clusterrole=fresh-requester --group="system:serviceaccounts:$NS"
k wait --for=condition=ready pod/app --timeout=180s
equal "who made the request" "$(k get certificaterequests -o 'jsonpath={.items[*].spec.username}')" "system:serviceaccount:$NS:default"
in_pod app openssl verify -CAfile /tls/ca.crt /tls/tls.crt
driver=$(k get pod -l app.kubernetes.io/instance=fresh -o name | head -n 1)
contains "what certlet status shows" "$(k exec "$driver" -- certlet status)" app
# The cluster's cert-manager runs its own approver.
contains "what certlet status says of the approver" "$(k exec "$driver" -- certlet status)" "approves every CertificateRequest"
node_is_told() { kubectl describe node "$(k get "$driver" -o 'jsonpath={.spec.nodeName}')" | grep -q EveryRequestApproved; }
wait_for 30 node_is_told

files() { in_pod app sha256sum /tls/tls.crt /tls/tls.key /tls/ca.crt; }
before=$(files)
helm uninstall fresh --namespace "$NS" --wait
equal "the files after the uninstall" "$(files)" "$before"
equal "the requests after the uninstall" "$(request_count)" 1
for object in clusterrole/fresh clusterrole/fresh-requester validatingadmissionpolicy/fresh-node-isolation "csidriver/$DRIVER"; do
	if kubectl get "$object" >/dev/null 2>&1; then fail "the uninstall left $object"; fi
done
k delete pod app --wait=false
sleep 10
k get pod app >/dev/null || fail "the kubelet let a pod go whose volume it cannot unmount"
helm_install fresh $DRIVER
gone() { ! k get pod app; }
wait_for 150 gone
wait_for 20 has_requests 0

# Every optional part, with the Prometheus operator's resources. This uses the node's network, where another program may use the
# default metrics port.
crds=("$E2E_RUN"/share/prometheus/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml)
kubectl apply --server-side "${crds[@]/#/--filename=}" >/dev/null
trap 'helm_end fresh; kubectl delete "${crds[@]/#/--filename=}"' EXIT
kubectl wait --for=condition=established crd/podmonitors.monitoring.coreos.com crd/prometheusrules.monitoring.coreos.com --timeout=30s
helm_install fresh $DRIVER --values "$E2E/../charts/certlet/tests/everything.yaml" --set metrics.port=19402
k get configmap/fresh-dashboard configmap/fresh-pca-policy networkpolicy/fresh resourcequota/fresh podmonitor/fresh prometheusrule/fresh >/dev/null
