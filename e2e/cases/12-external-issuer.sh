#!/usr/bin/env bash
# An unchanged external issuer: aws-privateca-issuer signs for certlet, with a CA in moto, which replaces AWS here.
# needs: certlet own-cluster aws-privateca-issuer moto
. "$(dirname "$0")/../lib.sh"

trap 'ctl stop aws-privateca-issuer moto' EXIT
kubectl apply -f "$E2E_RUN/share/aws-privateca-issuer/" >/dev/null
kubectl wait --for=condition=established crd/awspcaclusterissuers.awspca.cert-manager.io --timeout=30s
ctl start moto aws-privateca-issuer
arn=$("$E2E/cases/support/make-private-ca" http://127.0.0.1:10380)
kubectl apply -f - <<YAML
apiVersion: awspca.cert-manager.io/v1beta1
kind: AWSPCAClusterIssuer
metadata: { name: e2e-pca }
spec: { arn: "$arn", region: us-east-1 }
YAML
kubectl wait --for=condition=ready awspcaclusterissuer/e2e-pca --timeout=60s

ISSUER=e2e-pca certificate_pod app common-name=app.test dns-names=app.test issuer-group=awspca.cert-manager.io duration=24h |
	sed s/ClusterIssuer/AWSPCAClusterIssuer/ | k apply -f -
running app
contains "the issuer" "$(x509 app /tls/tls.crt -issuer)" "e2e private CA"
in_pod app openssl verify -CAfile /tls/ca.crt /tls/tls.crt
equal "the public half" "$(in_pod app openssl pkey -in /tls/tls.key -pubout)" "$(x509 app /tls/tls.crt -pubkey)"
equal "the number of requests" "$(request_count)" 1
