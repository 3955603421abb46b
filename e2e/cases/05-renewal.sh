#!/usr/bin/env bash
# Renewal as the pod sees it: a new certificate, with a new key or with the same one, and one request at a time. The key that is
# kept is RSA, because with RSA every signing request has the same bytes.
# needs: certlet
. "$(dirname "$0")/../lib.sh"

certificate_pod new-key common-name=a duration=30s renew-before=20s | k apply -f -
certificate_pod same-key common-name=a duration=30s renew-before=20s reuse-private-key=true key-algorithm=RSA | k apply -f -
running new-key same-key
declare -A serial key
for pod in new-key same-key; do
	serial[$pod]=$(serial $pod)
	key[$pod]=$(x509 $pod /tls/tls.crt -pubkey)
done
renewed() { [ "$(serial "$1")" != "${serial[$1]}" ]; }
for pod in new-key same-key; do
	wait_for 30 renewed $pod
	in_pod $pod openssl verify -CAfile /tls/ca.crt /tls/tls.crt
	equal "the public half of $pod" "$(in_pod $pod openssl pkey -in /tls/tls.key -pubout)" "$(x509 $pod /tls/tls.crt -pubkey)"
done
[ "$(x509 new-key /tls/tls.crt -pubkey)" != "${key[new-key]}" ] || fail "the key was not changed"
equal "the key that is kept" "$(x509 same-key /tls/tls.crt -pubkey)" "${key[same-key]}"
sleep 1
equal "the number of requests" "$(request_count)" 2
wait_for 20 events_say new-key CertificateIssued
equal "the number of Events" "$(events_of new-key | wc -l)" 1
