#!/usr/bin/env bash
# kubectl certlet on a real cluster: an administrator sees all nodes, renews one pod and no other, and learns which roots are in use. A
# tenant without permission to exec sees what the namespace's objects show, and cannot renew.
# needs: certlet own-cluster plugin
. "$(dirname "$0")/../lib.sh"

certificate_pod web dns-names=web.test | k apply -f -
certificate_pod other dns-names=other.test | k apply -f -
ISSUER=absent certificate_pod stuck dns-names=stuck.test | k apply -f -
running web other

plugin() { kubectl certlet -n "$NS" "$@" 2>"$TMPDIR/notices"; }
said() { cat "$TMPDIR/notices"; }

# An administrator: the drivers, by exec.
table=$(plugin status -o wide)
contains "the table" "$table" DNS:web.test
contains "the table" "$table" "$E2E_NODE"
contains "the source" "$(said)" "source: the drivers, by exec: 1 answered, 0 did not; namespace certlet"
equal "the certificates of the namespace" "$(plugin status -o json | jq '[.volumes[] | select(.expires_at).pod] | sort | join(" ")' -r)" "other web"
kubectl certlet status -A | grep -q "$NS  *web "
case $(plugin status) in *$'\e'*) fail "colours without a terminal" ;; esac

before=$(serial web) before_other=$(serial other)
renewed=$(plugin renew web)
contains "the renewal" "$renewed" "$NS/web: renewed, expires "
[ "$(serial web)" != "$before" ] || fail "web has its old certificate"
equal "the certificate of the other pod" "$(serial other)" "$before_other"
in_pod web openssl verify -CAfile /tls/ca.crt /tls/tls.crt
if plugin renew stuck; then fail "a pod without a certificate was renewed"; fi
all=$(plugin renew --all 2>&1) || true
contains "the renewal of all" "$all" "$NS/other: renewed"

# The driver waits for the request, so the pod has no Event of it yet.
refused() { k get certificaterequests -o json | jq -e '.items[].status.conditions[]? | select(.message | test("not found"))'; }
wait_for 30 refused
why=$(plugin why stuck)
contains "why" "$why" "csi.certlet.io/issuer-name: absent"
contains "why, the request" "$why" 'Ready=False (Pending): Referenced "ClusterIssuer" not found'
contains "why, the issuer" "$why" 'clusterissuers.cert-manager.io "absent" not found'
why=$(plugin why web)
contains "why" "$why" "last error   none"
contains "why" "$why" "Ready=True"
contains "why, the issuer" "$why" "ClusterIssuer e2e-ca (cert-manager.io): Ready=True"

roots=$(plugin trust)
contains "the roots" "$roots" CN=e2e-ca
contains "the roots" "$roots" "not before"
plugin trust -o json | jq -e '.is_complete and (.roots | length > 0)'

# A tenant: Pods, Events and CertificateRequests of one namespace.
k create role tenant --verb=get,list --resource=pods,events,certificaterequests.cert-manager.io
k create rolebinding tenant --role=tenant --serviceaccount="$NS:tenant"
tenant() { plugin --as="system:serviceaccount:$NS:tenant" "$@"; }
table=$(tenant status -o wide)
contains "a tenant's table" "$table" DNS:web.test
contains "a tenant's table" "$table" ClusterIssuer/e2e-ca
contains "a tenant's source" "$(said)" "source: Pods, Events and CertificateRequests of namespace $NS, because the drivers may not be asked"
contains "why, for a tenant" "$(tenant why stuck)" 'Referenced "ClusterIssuer" not found'
contains "why, for a tenant" "$(tenant why web)" "this user may not read it"
if tenant renew web; then fail "a tenant renewed by the driver's pod"; fi
contains "the refusal" "$(said)" Forbidden
if tenant trust; then fail "a tenant saw the nodes' roots"; fi

plugin completion bash | bash -n
