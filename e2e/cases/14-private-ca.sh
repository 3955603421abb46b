#!/usr/bin/env bash
# signer: acm-pca on a real node, against moto, which replaces AWS here: two calls and no controller. The policy is in a ConfigMap
# that is edited while the driver runs.
# - A pod that no rule allows has an Event that names the rule that came nearest.
# - After the ConfigMap is edited, the pod gets its certificate by itself.
# - A broken policy changes nothing.
# needs: certlet own-cluster helm moto
# limit: 700
. "$(dirname "$0")/../lib.sh"

export DRIVER=pca.csi.certlet.io
endpoint=http://127.0.0.1:10380
trap 'helm_end private-ca; ctl stop moto' EXIT
ctl start moto
arn=$("$E2E/cases/support/make-private-ca" $endpoint)

policy() { # NAME-PATTERN: a policy file with that pattern for DNS names.
	cat <<-YAML
		version: 2
		rules:
		  - name: shop
		    match: { namespaces: ["$NS"] }
		    allow: { certificateAuthorities: ["$arn"], callers: [driver], usages: [digital signature, key encipherment, server auth, client auth], maxDuration: 24h, dnsNames: ["$1"] }
	YAML
}
apply_policy() { k create configmap rules --from-file=rules.yaml=/dev/stdin --dry-run=client -o yaml | k apply -f -; }
policy '*.elsewhere.svc' | apply_policy

# The driver uses the node's network, because moto listens there. On that network another program may use the default metrics port.
values=$(mktemp)
cat >"$values" <<YAML
certManager: { enabled: false }
hostNetwork: true
metrics: { port: 19414 }
pca:
  enabled: true
  existingPolicy: { configMap: rules, key: rules.yaml }
  # The SDK needs some roots: the image of these cases has none. moto uses no TLS, so any roots do.
  caBundle: { configMap: kube-root-ca.crt }
extraEnv:
  - { name: AWS_ENDPOINT_URL, value: "$endpoint" }
  - { name: AWS_ACCESS_KEY_ID, value: e2e }
  - { name: AWS_SECRET_ACCESS_KEY, value: e2e }
YAML
helm_install private-ca $DRIVER --values "$values"
rm "$values"
driver=$(k get pod -l app.kubernetes.io/instance=private-ca -o name | head -n 1)
driver_logged() { k logs "$driver" | grep -q -- "$1"; }
metric() { curl -fs http://127.0.0.1:19414/metrics | sed -n "s/^$1 //p"; }

# private_pod NAME ATTRIBUTE=VALUE...: as certificate_pod, with this CA and without an issuer.
private_pod() { certificate_pod "$@" signer=acm-pca "certificate-authority-arn=$arn" | sed '/issuer-/d'; }
has_event() { # POD TEXT
	k get events --field-selector "involvedObject.name=$1" -o json |
		jq -e --arg text "$2" '[.items[].message | select(contains($text))] | length > 0'
}

private_pod app "dns-names=app.$NS.svc" | k apply -f -
wait_for 90 has_event app 'denied by the policy of this cluster; rule "shop" comes nearest: dns-names:'
equal "whether the pod waits" "$(k get pod app -o 'jsonpath={.status.phase}')" Pending

# The kubelet updates a ConfigMap volume within about a minute. It also tries the pod again by itself.
edited=$SECONDS
policy '*.{namespace}.svc' | apply_policy
wait_for 150 driver_logged "the policy has changed"
echo "note: the edited policy was in force after $((SECONDS - edited)) s"
k wait --for=condition=ready pod/app --timeout=150s
echo "note: the pod was ready after $((SECONDS - edited)) s"
contains "the issuer" "$(x509 app /tls/tls.crt -issuer)" "e2e private CA"
contains "the names" "$(x509 app /tls/tls.crt -ext subjectAltName)" "DNS:app.$NS.svc"
in_pod app openssl verify -CAfile /tls/ca.crt -verify_hostname "app.$NS.svc" /tls/tls.crt
equal "the public half" "$(in_pod app openssl pkey -in /tls/tls.key -pubout)" "$(x509 app /tls/tls.crt -pubkey)"
equal "the number of CertificateRequests" "$(request_count)" 0
equal "IssueCertificate calls" "$(metric 'certlet_pca_calls_total{call="IssueCertificate",result="ok"}')" 1
contains "what certlet status shows" "$(k exec "$driver" -- certlet status)" app

# With a broken policy the old rules stay in force, and the log says so.
echo 'version: 1, rules: nonsense' | apply_policy
wait_for 150 driver_logged "THE OLD RULES STAY IN FORCE"
[ "$(metric certlet_pca_policy_refusals_total)" -ge 1 ] || fail "the refused policy is not counted"
private_pod other "dns-names=other.$NS.svc" | k apply -f -
running other
in_pod other openssl verify -CAfile /tls/ca.crt /tls/tls.crt
