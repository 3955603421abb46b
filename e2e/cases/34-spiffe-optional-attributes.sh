#!/usr/bin/env bash
# duration, renew-before and dns-names, which csi-driver-spiffe does not have.
# - By default they are ignored, as it does. An Event says so, and how an operator allows them.
# - Where the driver passes them on, the approver decides: durations up to approver.maxDuration, and names of Services that exist in
#   the pod's namespace. A refused pod's Event says what is accepted.
# needs: certlet own-cluster
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/spiffe.sh"

spiffe_begin
account app
k create service clusterip web --tcp=443
spiffe_pod ignored app duration=2h "dns-names=web.$NS.svc" | k apply -f -
running ignored
has_identity ignored app
equal "the requested duration" "$(request_of ignored .spec.duration)" 1h0m0s
for attribute in duration dns-names; do wait_for 60 events_say ignored "AttributeDoubtful: .*$attribute.*is ignored"; done

spiffe_install --set 'spiffe.attributes={duration,renew-before,dns-names},approver.maxDuration=2h,approver.allowServiceDnsNames=true'
spiffe_pod granted app duration=2h "dns-names=web.$NS.svc,web.$NS.svc.cluster.local" | k apply -f -
spiffe_pod renewing app duration=30s renew-before=20s | k apply -f -
spiffe_pod usual app | k apply -f -
spiffe_pod too-long app duration=3h | k apply -f -
spiffe_pod no-service app "dns-names=absent.$NS.svc" | k apply -f -
spiffe_pod elsewhere app dns-names=kubernetes.default.svc | k apply -f -
running granted renewing usual

equal "the requested duration" "$(request_of granted .spec.duration)" 2h0m0s
in_pod granted openssl x509 -in /tls/tls.crt -noout -checkend 7000
names=$(x509 granted /tls/tls.crt -ext subjectAltName)
for name in "URI:$(spiffe_id app)" "DNS:web.$NS.svc" "DNS:web.$NS.svc.cluster.local"; do contains "the names" "$names" "$name"; done
equal "the subject" "$(x509 granted /tls/tls.crt -subject)" "subject="
has_identity usual app
equal "the requested duration of a pod without attributes" "$(request_of usual .spec.duration)" 1h0m0s

is_refused() { events_say "$1" "CertificateRefused: .*$2"; }
wait_for 60 is_refused too-long 'spec.duration: is "3h0m0s"; accepted: up to 2h0m0s'
wait_for 60 is_refused no-service "absent"
wait_for 60 is_refused elsewhere "kubernetes.default.svc"

last=$(serial renewing)
renewed() { [ "$(serial renewing)" != "$last" ]; }
wait_for 60 renewed
has_identity renewing app
