#!/usr/bin/env bash
# The API server is gone while renewals fall due: the old files stay, and when it is back renewal follows by itself,
# without a stampede. GONE_FOR: for how many seconds, by default 40.
# needs: certlet own-cluster
# limit: 1000
. "$(dirname "$0")/../lib.sh"

gone_for=${GONE_FOR:-40}
life=$((gone_for + 260))
pods=(app-0 app-1 app-2 app-3 app-4 app-5 app-6 app-7 app-8 app-9)
for pod in "${pods[@]}"; do certificate_pod "$pod" "common-name=$pod" duration=${life}s renew-before=$((life - 20))s | k apply -f -; done
running "${pods[@]}"
# Without an API server there is no exec: look from the node.
declare -A file first
for pod in "${pods[@]}"; do
	file[$pod]=/var/lib/kubelet/pods/$(k get pod "$pod" -o 'jsonpath={.metadata.uid}')/volumes/kubernetes.io~csi/tls/mount/tls.crt
done
address=$(kubectl -n certlet get pod -l app.kubernetes.io/instance=certlet -o 'jsonpath={.items[0].status.podIP}')
renewals() {
	curl -fsS "http://$address:9402/metrics" |
		awk '/^certlet_issuances_total\{.*purpose="renewal".*result="ok"/ { n += $NF } END { print n + 0 }'
}
serial_of() { openssl x509 -in "${file[$1]}" -noout -serial; }

ctl kill apiserver # a stop takes a minute: it drains
trap 'ctl start apiserver' EXIT
renewed_before=$(renewals)
for pod in "${pods[@]}"; do first[$pod]=$(serial_of "$pod"); done
sleep "$gone_for" # every renewal falls due in this time, and fails
for pod in "${pods[@]}"; do equal "the certificate of $pod" "$(serial_of "$pod")" "${first[$pod]}"; done

ctl start apiserver
all_renewed() {
	local pod
	for pod in "${pods[@]}"; do [ "$(serial_of "$pod")" != "${first[$pod]}" ] || return 1; done
}
wait_for 200 all_renewed # before the first certificates end; cert-manager itself needs a minute, or more, to come back
for pod in "${pods[@]}"; do openssl x509 -in "${file[$pod]}" -noout -checkend 1; done
for pod in "${pods[@]}"; do wait_for 30 events_say "$pod" CertificateRenewalRecovered; done
# Counted by the API server, which started anew: one request for each renewal, the next ones of those that were renewed first
# included. While it still reads its roles it refuses everybody, and each volume may try a few times, ever more slowly.
posts() { kubectl get --raw /metrics | grep '^apiserver_request_total{.*resource="certificaterequests".*verb="POST"' | grep "$1" | awk '{ n += $NF } END { print n + 0 }'; }
created=$(posts 'code="201"')
asked=$(posts .)
renewed=$(($(renewals) - renewed_before))
echo "note: $created requests were created for $renewed renewals, of $asked asked for"
[ "$renewed" -ge ${#pods[@]} ] || fail "too few renewals: $renewed"
[ "$created" -le $((renewed + 2)) ] || fail "too many requests: $created"
[ "$asked" -le $((created + 4 * ${#pods[@]})) ] || fail "a stampede: $asked requests asked for"
