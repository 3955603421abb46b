#!/usr/bin/env bash
# csi-driver-spiffe's volumes with the driver's own service account, as with its --use-own-service-account. No service account of a pod
# needs the right to create CertificateRequests.
# - Each pod gets the identity of its own account. The request is the driver's. Without --source-ca-bundle there is no ca.crt.
# - Whoever has the token of a node's driver gets the identities of the pods on that node, and no others.
# needs: certlet own-cluster
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/spiffe.sh"

spiffe_begin --set certManager.tokenRequest.enabled=false,trust.sources=null
export FILES="tls.crt tls.key"
for account in shop bank absent; do k create serviceaccount $account; done
for pod in shop bank; do spiffe_pod $pod $pod | k apply -f -; done
running shop bank
for pod in shop bank; do
	has_identity $pod $pod
	equal "who made the request of $pod" "$(request_of $pod .spec.username)" "system:serviceaccount:$NS:$RELEASE"
	contains "who approved it" "$(request_of $pod '.status.conditions[].reason')" approver.certlet.io
done
equal "whether a pod can make a request" "$(kubectl auth can-i create certificaterequests.cert-manager.io -n "$NS" --as="system:serviceaccount:$NS:shop" || true)" no

# The driver's token, stolen from its node. The API server binds it to the driver's pod, and so to the node.
driver=$(k get pod -l app.kubernetes.io/name=certlet,app.kubernetes.io/instance=$RELEASE -o 'jsonpath={.items[0].metadata.name}')
node=$(k get pod "$driver" -o 'jsonpath={.spec.nodeName}')
token=$(k create token $RELEASE --bound-object-kind Pod --bound-object-name "$driver" --bound-object-uid "$(k get pod "$driver" -o 'jsonpath={.metadata.uid}')")
kubectl config view --minify --raw --flatten -o 'jsonpath={.clusters[0].cluster.certificate-authority-data}' | base64 -d >"$work/api.crt"
server=$(kubectl config view --minify --raw -o 'jsonpath={.clusters[0].cluster.server}')
request() { # NAME ACCOUNT
	kubectl --kubeconfig=/dev/null --server="$server" --certificate-authority="$work/api.crt" --token="$token" -n "$NS" create -f - <<-YAML
		apiVersion: cert-manager.io/v1
		kind: CertificateRequest
		metadata:
		  name: $1
		  labels: { certlet.io/node: "$node" }
		  annotations: { spiffe.csi.cert-manager.io/identity: "$(spiffe_id "$2")" }
		spec:
		  request: $(openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj / -addext "subjectAltName=critical,URI:$(spiffe_id "$2")" 2>/dev/null | base64 -w0)
		  issuerRef: { name: spiffe-ca, kind: ClusterIssuer, group: cert-manager.io }
		  duration: 1h
		  usages: [digital signature, key encipherment, server auth, client auth]
	YAML
}
request stolen-of-node bank
request stolen-of-nobody absent
approved stolen-of-node
denied stolen-of-nobody "has no pod of the service account $NS/absent"
k delete pod bank --wait
request stolen-of-ended bank
denied stolen-of-ended "has no pod of the service account $NS/bank"
