#!/usr/bin/env bash
# The cluster itself: pods run, exec and services work, and a CA ClusterIssuer signs a request. The request names the account that
# made it. Needs no certlet.
. "$(dirname "$0")/../lib.sh"

k apply -f - <<YAML
apiVersion: v1
kind: Pod
metadata: { name: server, labels: { app: server } }
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - { name: main, image: $POD_IMAGE, command: [sh, -c, "mkdir /www && echo hello >/www/index.html && exec httpd -f -p 8080 -h /www"] }
---
apiVersion: v1
kind: Service
metadata: { name: server }
spec: { selector: { app: server }, ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Pod
metadata: { name: client }
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - { name: main, image: $POD_IMAGE, command: [sleep, infinity] }
YAML
running server client
service=$(k get service server -o 'jsonpath={.spec.clusterIP}')
wait_for 30 in_pod client wget -qO- "http://$service"
equal "the service's answer" "$(in_pod client wget -qO- "http://$service")" hello
contains "openssl in a pod" "$(in_pod client openssl version)" "OpenSSL 3"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / -addext subjectAltName=DNS:app.test \
	-keyout "$work/key" -out "$work/csr" 2>/dev/null
k create -f - <<YAML
apiVersion: cert-manager.io/v1
kind: CertificateRequest
metadata: { name: by-hand }
spec:
  request: $(base64 -w0 "$work/csr")
  usages: [digital signature, server auth]
  issuerRef: { kind: ClusterIssuer, name: e2e-ca }
  username: somebody-else
YAML
k wait --for=condition=ready certificaterequest/by-hand --timeout=30s
k get certificaterequest by-hand -o 'jsonpath={.status.certificate}' | base64 -d >"$work/crt"
k get certificaterequest by-hand -o 'jsonpath={.status.ca}' | base64 -d >"$work/ca"
openssl verify -CAfile "$work/ca" "$work/crt"
contains "the certificate's names" "$(openssl x509 -in "$work/crt" -noout -ext subjectAltName)" DNS:app.test
equal "the request's maker" "$(k get certificaterequest by-hand -o 'jsonpath={.spec.username}')" \
	"$(kubectl auth whoami -o 'jsonpath={.status.userInfo.username}')"
