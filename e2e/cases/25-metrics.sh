#!/usr/bin/env bash
# A real Prometheus scrapes the driver. The alerts load and stay silent, a certificate that is not renewed makes them fire, and every
# panel of the dashboard has data.
# needs: certlet own-cluster prometheus
. "$(dirname "$0")/../lib.sh"

export DRIVER=metrics.csi.certlet.io
work=$(mktemp -d)
url=http://127.0.0.1:10390
cleanup() {
	if [ -n "${prometheus:-}" ]; then kill "$prometheus"; fi
	ctl start cert-manager
	helm_end metrics
	rm -rf "$work"
}
trap cleanup EXIT
helm_install metrics $DRIVER --set "requesters.namespaces={$NS}"
address=$(k get pod -l app.kubernetes.io/instance=metrics -o 'jsonpath={.items[0].status.podIP}')
curl -fsS "http://$address:9402/metrics" >"$work/metrics"
contains "the metrics" "$(cat "$work/metrics")" certlet_registered

helm template certlet "$E2E/../charts/certlet" --kube-version 1.36.0 --set monitoring.prometheusRule.enabled=true --show-only templates/prometheusrule.yaml |
	sed '1,/^spec:/d; s/^  //' >"$work/rules.yaml"
cat >"$work/prometheus.yaml" <<YAML
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [$work/rules.yaml]
scrape_configs:
  - job_name: certlet
    static_configs: [{ targets: ["$address:9402"], labels: { node: $E2E_NODE } }]
YAML
prometheus --config.file="$work/prometheus.yaml" --storage.tsdb.path="$work/data" --web.listen-address="${url#http://}" >"$work/log" 2>&1 &
prometheus=$!
wait_for 20 curl -fs $url/-/ready
alerts() { curl -fsS $url/api/v1/alerts | jq -r '.data.alerts[] | .labels.alertname' | sort -u | xargs; }
value() { curl -fsS --get --data-urlencode "query=$1" $url/api/v1/query | jq -r '.data.result[0].value[1]'; }
# Prometheus begins to scrape about five seconds after its start. Until then it sees no driver.
scraped() { [ "$(value 'up{job="certlet"}')" = 1 ]; }
wait_for 30 scraped

certificate_pod app common-name=app duration=1h | k apply -f -
certificate_pod renewing common-name=renewing duration=40s | k apply -f -
running app renewing
sleep 5
equal "the alerts at rest" "$(alerts)" ""
equal "rules that cannot be evaluated" "$(curl -fsS $url/api/v1/rules | jq '[.data.groups[].rules[] | select(.health != "ok")] | length')" 0
equal "volumes in use" "$(value 'sum(certlet_volumes{job="certlet"})')" 2
"$E2E/../scripts/dashboard-check" $url

# Without its issuer a renewal is late, and then the certificate has almost expired. The alerts must at least be pending.
ctl stop cert-manager
has_alert() { [[ " $(alerts) " == *" $1 "* ]]; }
wait_for 60 has_alert CertletRenewalOverdue
wait_for 60 has_alert CertletCertificateNearExpiry
ctl start cert-manager
on_time_again() { ! has_alert CertletRenewalOverdue && ! has_alert CertletCertificateNearExpiry; }
wait_for 180 on_time_again

# The driver is removed.
k delete pod app renewing --wait
k delete daemonset metrics --wait
wait_for 60 has_alert CertletDown
