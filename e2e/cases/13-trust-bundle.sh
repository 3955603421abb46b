#!/usr/bin/env bash
# trust-manager's trust bundle is mounted beside the certificate volume, and the peer is verified with it.
# needs: certlet own-cluster trust-manager
. "$(dirname "$0")/../lib.sh"

trap 'kubectl delete bundle e2e-roots; ctl stop trust-manager' EXIT
kubectl apply -f "$E2E_RUN/share/trust-manager/crds" >/dev/null
kubectl wait --for=condition=established crd/bundles.trust.cert-manager.io --timeout=30s
ctl start trust-manager
kubectl apply -f - <<YAML
apiVersion: trust.cert-manager.io/v1alpha1
kind: Bundle
metadata: { name: e2e-roots }
spec:
  sources: [{ secret: { name: e2e-ca, key: tls.crt } }]
  target:
    configMap: { key: roots.pem }
    namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: $NS } }
YAML
wait_for 30 k get configmap e2e-roots

peer() { # NAME MTLS-PEER-ARGUMENTS
	certificate_pod "$1" "dns-names=$1.test" 'key-usages=digital signature,server auth,client auth' | sed \
		-e "s|command: .*|command: [mtls-peer, ${2// /, }, -ca, /roots/roots.pem]|" \
		-e 's|mountPath: /tls, readOnly: true }|&, { name: roots, mountPath: /roots }|' \
		-e 's|^  volumes:|&\n    - { name: roots, configMap: { name: e2e-roots } }|' -e 's|^spec:|&\n  restartPolicy: Never|' | k apply -f -
}
peer server server
running server
wait_for 10 in_pod server sh -c "netstat -ltn | grep -q :8443"
peer client "client -connect $(k get pod server -o 'jsonpath={.status.podIP}'):8443 -server-name server.test -timeout 5s"
k wait --for=jsonpath='{.status.phase}'=Succeeded pod/client --timeout=60s
[ "$(k logs client | tail -n 1 | jq .ok)" -gt 10 ] || fail "too few requests: $(k logs client)"
