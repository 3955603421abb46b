#!/usr/bin/env bash
# A pod reads an ECDSA certificate from a CA ClusterIssuer. Chain, names, usages and key are right.
# needs: certlet
. "$(dirname "$0")/../lib.sh"

certificate_pod app 'common-name=${POD_NAME}' 'dns-names=${POD_NAME}.${POD_NAMESPACE}.svc,app.test' \
	'uri-sans=spiffe://test/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}' ip-sans=10.1.2.3 \
	'key-usages=digital signature,server auth,client auth' duration=1h | k apply -f -
running app
equal "the files" "$(in_pod app ls /tls | sort | xargs)" "ca.crt tls.crt tls.key"
in_pod app openssl verify -CAfile /tls/ca.crt -untrusted /tls/tls.crt -purpose sslserver /tls/tls.crt
in_pod app openssl verify -CAfile /tls/ca.crt -untrusted /tls/tls.crt -purpose sslclient /tls/tls.crt
text=$(x509 app /tls/tls.crt -text)
contains "the subject" "$(x509 app /tls/tls.crt -subject)" "CN = app"
for name in "DNS:app.$NS.svc" DNS:app.test "URI:spiffe://test/ns/$NS/sa/default" "IP Address:10.1.2.3"; do
	contains "the names" "$text" "$name"
done
contains "the key" "$text" "NIST CURVE: P-256"
contains "the extended usages" "$text" "TLS Web Server Authentication, TLS Web Client Authentication"
contains "the key's encoding" "$(in_pod app head -n 1 /tls/tls.key)" "BEGIN PRIVATE KEY"
equal "the key's public half" "$(in_pod app openssl pkey -in /tls/tls.key -pubout)" "$(x509 app /tls/tls.crt -pubkey)"
in_pod app openssl x509 -in /tls/tls.crt -noout -checkend 3000
if in_pod app openssl x509 -in /tls/tls.crt -noout -checkend 3700; then fail "the certificate lives longer than an hour"; fi

mount=$(in_pod app grep ' /tls ' /proc/mounts)
contains "the mount" ",${mount// /,}," ,ro,
contains "the mount" "$mount" tmpfs
if [ -n "${CERTLET_E2E_INSIDE:-}" ]; then
	# The container runtime mounts the volume into the container with its own flags. certlet's flags are on the node's mount.
	mount=$(grep "$(k get pod app -o 'jsonpath={.metadata.uid}')/volumes/kubernetes.io~csi" /proc/mounts)
	for option in ro nosuid nodev noexec; do contains "the node's mount" ",${mount// /,}," ",$option,"; done
fi
if in_pod app touch /tls/x 2>/dev/null; then fail "the volume can be written"; fi
equal "the key's mode" "$(in_pod app stat -L -c %a /tls/tls.key)" 400

equal "the number of requests" "$(request_count)" 1
request=$(k get certificaterequests -o json | jq '.items[0]')
equal "the request's owner" "$(jq -r '.metadata.ownerReferences[0] | .kind + "/" + .name' <<<"$request")" Pod/app
equal "the request's duration" "$(jq -r .spec.duration <<<"$request")" 1h0m0s

wait_for 20 events_say app "CertificateIssued: .*valid until"
equal "the number of Events" "$(events_of app | wc -l)" 1

k delete pod app
wait_for 30 has_requests 0
