#!/usr/bin/env bash
# The API server is down when renewals fall due. The old files stay. When the API server is back, certlet renews by itself, without a
# stampede. GONE_FOR: how long the API server is down, in seconds; the default is 40.
# needs: certlet own-cluster
# limit: 1000
. "$(dirname "$0")/../lib.sh"

gone_for=${GONE_FOR:-40}
life=$((gone_for + 260))
pods=(app-0 app-1 app-2 app-3 app-4 app-5 app-6 app-7 app-8 app-9)
for pod in "${pods[@]}"; do certificate_pod "$pod" "common-name=$pod" duration=${life}s renew-before=$((life - 20))s | k apply -f -; done
running "${pods[@]}"
# kubectl exec needs the API server, so this reads the files on the node.
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

ctl kill apiserver # kill, because a stop waits a minute for connections to drain
trap 'ctl start apiserver' EXIT
renewed_before=$(renewals)
for pod in "${pods[@]}"; do first[$pod]=$(serial_of "$pod"); done
sleep "$gone_for" # in this time every renewal falls due and fails
for pod in "${pods[@]}"; do equal "the certificate of $pod" "$(serial_of "$pod")" "${first[$pod]}"; done

ctl start apiserver
all_renewed() {
	local pod
	for pod in "${pods[@]}"; do [ "$(serial_of "$pod")" != "${first[$pod]}" ] || return 1; done
}
wait_for 200 all_renewed # before the first certificates expire; cert-manager itself needs a minute or more to recover
for pod in "${pods[@]}"; do openssl x509 -in "${file[$pod]}" -noout -checkend 1; done
for pod in "${pods[@]}"; do wait_for 30 events_say "$pod" CertificateRenewalRecovered; done
# The API server has counted since it started again. There must be one request per renewal; the first volumes may already have
# renewed twice. While the API server still reads its roles, it refuses every request, so each volume may try a few times, with
# growing pauses.
posts() { kubectl get --raw /metrics | grep '^apiserver_request_total{.*resource="certificaterequests".*verb="POST"' | grep "$1" | awk '{ n += $NF } END { print n + 0 }'; }
created=$(posts 'code="201"')
asked=$(posts .)
renewed=$(($(renewals) - renewed_before))
echo "note: certlet sent $asked requests, $created were created, for $renewed renewals"
[ "$renewed" -ge ${#pods[@]} ] || fail "too few renewals: $renewed"
[ "$created" -le $((renewed + 2)) ] || fail "too many requests: $created"
[ "$asked" -le $((created + 4 * ${#pods[@]})) ] || fail "a stampede: certlet sent $asked requests"
