#!/usr/bin/env bash
# Classes of identity, from the chart's values:
# - a pod whose volume says nothing gets the identity of the default class
# - what a class fixes a pod cannot change, and a class that is not for a pod is refused: the pod's Events say so
# - a change of the ConfigMap applies at the next renewal, without a restart
# - a ConfigMap that is not valid changes nothing, and an Event on the node says so
# - a class that is gone leaves the certificate, and an Event says that the renewal fails
# needs: certlet own-cluster
# limit: 600
. "$(dirname "$0")/../lib.sh"

trap 'helm_end certlet-classes' EXIT
work=$(mktemp -d)
driver=classes.csi.certlet.io
classes() { # NAME-OF-THE-CERTIFICATE
	cat <<-YAML
		classes:
		  version: 1
		  default: mesh
		  classes:
		    mesh:
		      attributes:
		        issuer-name: e2e-ca
		        issuer-kind: ClusterIssuer
		        dns-names: \${POD_NAME}.$1.example
		        duration: 10m
		        renew-before: 9m50s
		      allow: [fs-group]
		    bank:
		      use: { namespaces: [bank] }
		      attributes: { issuer-name: e2e-ca, issuer-kind: ClusterIssuer, dns-names: a.bank.example }
	YAML
}
classes one >"$work/values.yaml"
helm_install certlet-classes $driver --values "$work/values.yaml" --set requireClass=true,certManager.tokenRequest.enabled=false
started=$(k get pods -l app.kubernetes.io/instance=certlet-classes -o 'jsonpath={.items[0].metadata.uid}')

class_pod() { # NAME ATTRIBUTE=VALUE...
	DRIVER=$driver certificate_pod "$@" | sed '/issuer-name\|issuer-kind/d' | {
		if [ $# -gt 1 ]; then cat; else sed '/volumeAttributes:/d'; fi
	}
}
class_pod bare | k apply -f -
running bare
names() { x509 bare /tls/tls.crt -ext subjectAltName; }
contains "the name of the default class" "$(names)" "DNS:bare.one.example"

class_pod fixed class=mesh duration=1h | k apply -f -
class_pod stranger class=bank | k apply -f -
class_pod unclassed common-name=a | k apply -f -
said() { k get events --field-selector "involvedObject.name=$1" -o 'jsonpath={.items[*].message}' | grep -qF "$2"; }
wait_for 60 said fixed 'csi.certlet.io/duration: is decided by the class "mesh", and a pod cannot change it'
wait_for 60 said stranger 'csi.certlet.io/class: the class "bank" is not for the service account "default"'
wait_for 60 said unclassed 'csi.certlet.io/class: is required (--require-class)'
k delete pods fixed stranger unclassed --wait=false

# A ConfigMap reaches the driver's pod with the kubelet's next sync.
classes two >"$work/values.yaml"
helm_install certlet-classes $driver --values "$work/values.yaml" --set requireClass=true,certManager.tokenRequest.enabled=false
changed() { names | grep -q "DNS:bare.two.example"; }
wait_for 150 changed

set_file() { # TEXT
	k create configmap certlet-classes-classes --from-literal=classes.yaml="$1" --dry-run=client -o json | jq '{data}' >"$work/patch.json"
	k patch configmap certlet-classes-classes --patch-file "$work/patch.json"
	# A changed annotation makes the kubelet sync the pod's volumes at once.
	k annotate pods -l app.kubernetes.io/instance=certlet-classes "changed=$RANDOM$RANDOM" --overwrite
}
set_file 'version: 1
classes: { mesh: { attributes: { durration: 1h } } }'
invalid() { kubectl get events -A --field-selector reason=ClassesInvalid -o 'jsonpath={.items[*].message}' | grep -q durration; }
wait_for 150 invalid
last=$(serial bare)
renewed() { [ "$(serial bare)" != "$last" ]; }
wait_for 60 renewed

set_file 'version: 1
classes: {}'
failing() { events_say bare "CertificateRenewalFailing: .*was the default class"; }
wait_for 150 failing
contains "the name in the certificate that stays" "$(names)" "DNS:bare.two.example"
equal "the driver's pod" "$(k get pods -l app.kubernetes.io/instance=certlet-classes -o 'jsonpath={.items[0].metadata.uid}')" "$started"
