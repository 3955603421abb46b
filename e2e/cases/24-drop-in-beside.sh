#!/usr/bin/env bash
# A second instance runs beside the first, under the name of cert-manager's csi-driver, from the chart and its values-drop-in.yaml.
# Each serves its own pods. When one is uninstalled, the other's pods do not notice.
# needs: certlet
. "$(dirname "$0")/../lib.sh"

if kubectl get csidriver csi.cert-manager.io >/dev/null 2>&1; then skip "csi.cert-manager.io is installed already"; fi
trap 'helm_end drop-in' EXIT
helm_install drop-in csi.cert-manager.io --values "$E2E/../charts/certlet/values-drop-in.yaml"
certificate_pod first common-name=first | k apply -f -
DRIVER=csi.cert-manager.io certificate_pod second csi.cert-manager.io/dns-names=second.test | k apply -f -
running first second
contains "the first key" "$(in_pod first openssl pkey -in /tls/tls.key -noout -text)" P-256
contains "the second key, of the other prefix" "$(in_pod second openssl pkey -in /tls/tls.key -noout -text)" "2048 bit"
equal "who made the second request" "$(k get certificaterequests -o json | jq -r '[.items[].spec.username] | sort | last')" "system:serviceaccount:$NS:drop-in"
before=$(in_pod first sha256sum /tls/tls.crt)
k delete pod second --wait
wait_for 20 has_requests 1
helm uninstall drop-in --namespace "$NS" --wait
equal "the first pod's certificate" "$(in_pod first sha256sum /tls/tls.crt)" "$before"
certificate_pod third common-name=third | k apply -f -
running third
trap - EXIT
