#!/usr/bin/env bash
# With readiness gates a pod starts with an empty volume, and no request is made for it. The files appear when the pod has passed the
# gates, also if the driver has restarted in between. ${POD_IP} is the address that the pod has then.
# needs: certlet
. "$(dirname "$0")/../lib.sh"

export DRIVER=gates.csi.certlet.io
trap 'helm_end gates' EXIT
helm_install gates $DRIVER --set "requesters.namespaces={$NS},certManager.continueOnNotReady=true" \
	--set 'certManager.podReadinessGates={pod-ip:any,pod-annotation:example.org/go}' --set certManager.kubeApiQps=5

certificate_pod app common-name=app 'ip-sans=${POD_IP}' | k apply -f -
certificate_pod later common-name=later | k apply -f -
running app later
sleep 5 # by now the pods have an address but no annotation
equal "the files before the gates are passed" "$(in_pod app ls /tls)" ""
equal "the requests before" "$(request_count)" 0

k annotate pod app example.org/go=yes
wait_for 60 in_pod app openssl verify -CAfile /tls/ca.crt /tls/tls.crt
equal "the requests of the one that passed" "$(request_count)" 1
equal "the addresses in its certificate" "$(in_pod app openssl x509 -in /tls/tls.crt -noout -ext subjectAltName | sed -n 's/^ *IP Address://p')" \
	"$(k get pod app -o jsonpath='{.status.podIP}')"
equal "the files of the other" "$(in_pod later ls /tls)" ""

k rollout restart daemonset/gates
k rollout status daemonset/gates --timeout=90s
k annotate pod later example.org/go=yes
wait_for 120 in_pod later openssl verify -CAfile /tls/ca.crt /tls/tls.crt # the kubelet's next call brings the token
equal "the requests of both" "$(request_count)" 2
