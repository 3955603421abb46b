#!/usr/bin/env bash
# The admission policies:
# - a driver's token can use only the CertificateRequests of its own node
# - a pod's token cannot make requests for another node
# - nobody else can make a request that a driver watches, or change which node and volume it is for
# - a pod's token cannot make requests for another pod, neither as a driver does nor as a sidecar does
# - a service account can make requests only in its own namespace
# - a driver can change nothing of a node but its taint
# Real tokens take the part of stolen credentials. The API server binds each token to a pod, and so to that pod's node.
# needs: certlet
. "$(dirname "$0")/../lib.sh"

release=isolated
ca=$(mktemp)
cleanup() {
	rm -f "$ca"
	helm_end $release
	kubectl delete node elsewhere --ignore-not-found
}
trap cleanup EXIT

# The driver has all rights that it can ever have: its own account makes requests, and it may patch nodes.
HELM_NO_WAIT=${NO_KUBELET:-} helm_install $release isolated.csi.certlet.io --set certManager.tokenRequest.enabled=false \
	--set startupTaint.enabled=true,tolerations=null
node=$(kubectl get nodes -o 'jsonpath={.items[0].metadata.name}')
# A second node without a kubelet. Pods can be bound to it, which is enough for a token.
kubectl apply -f - <<YAML
apiVersion: v1
kind: Node
metadata: { name: elsewhere, labels: { kubernetes.io/os: none } }
spec: { taints: [{ key: certlet.io/not-ready, effect: NoExecute }, { key: other, effect: NoSchedule }] }
YAML
pod_on() { # NAME NODE SERVICE-ACCOUNT
	k apply -f - >/dev/null <<-YAML
		apiVersion: v1
		kind: Pod
		metadata: { name: $1 }
		spec:
		  nodeName: $2
		  serviceAccountName: $3
		  terminationGracePeriodSeconds: 0
		  tolerations: [{ operator: Exists }]
		  containers: [{ name: main, image: "$POD_IMAGE", imagePullPolicy: IfNotPresent, command: [sleep, infinity] }]
	YAML
}
token_of() { # POD SERVICE-ACCOUNT
	k create token "$2" --bound-object-kind Pod --bound-object-name "$1" --bound-object-uid "$(k get pod "$1" -o 'jsonpath={.metadata.uid}')"
}
k create serviceaccount app
pod_on driver-here "$node" $release
pod_on driver-elsewhere elsewhere $release
pod_on app-here "$node" app
server=$(kubectl config view --minify --raw -o 'jsonpath={.clusters[0].cluster.server}')
kubectl config view --minify --raw --flatten -o 'jsonpath={.clusters[0].cluster.certificate-authority-data}' | base64 -d >"$ca"
# as TOKEN COMMAND...: runs kubectl with that token and nothing else, in namespace IN.
as() {
	local token=$1
	shift
	kubectl --kubeconfig=/dev/null --server="$server" --certificate-authority="$ca" --token="$token" -n "${IN:-$NS}" "$@"
}
here=$(token_of driver-here $release)
elsewhere=$(token_of driver-elsewhere $release)
unbound=$(k create token $release)
app=$(token_of app-here app)
equal "who the driver is" "$(as "$here" auth whoami -o 'jsonpath={.status.userInfo.extra.authentication\.kubernetes\.io/node-name}')" "[\"$node\"]"

request() { # NAME [NODE-LABEL]
	cat <<-YAML
		apiVersion: cert-manager.io/v1
		kind: CertificateRequest
		metadata: { name: $1, labels: { ${2:+"certlet.io/node: $2"} } }
		spec: { request: LS0t, issuerRef: { name: nobody } }
	YAML
}
denied() { # WHAT TEXT-IN-THE-MESSAGE COMMAND...
	local what=$1 says=$2 output
	shift 2
	if output=$("$@" 2>&1); then fail "$what: was allowed"; fi
	contains "$what" "$output" "$says"
}
create() { request "${@:2}" | as "$1" create -f -; } # TOKEN REQUEST-ARGUMENTS

# After the chart is installed its policies take a moment to come into force.
policy_holds() { if request probe "$node" | as "$elsewhere" create --dry-run=server -f -; then return 1; fi; }
wait_for 30 policy_holds

create "$here" mine "$node"
create "$elsewhere" theirs elsewhere
denied "a request for another node" "must be elsewhere" create "$elsewhere" forged "$node"
denied "a request for no node" "must be elsewhere" create "$elsewhere" forged
denied "a request with a token that is not bound to a node" "bound to a pod on a node" create "$unbound" forged "$node"
denied "another node's request, deleted" "does not belong to elsewhere" as "$elsewhere" delete certificaterequest mine
# This deletes the caller's own requests too.
denied "all requests, deleted" "does not belong to elsewhere" as "$elsewhere" delete certificaterequests --all
k get certificaterequest mine
denied "its own request, changed" "cannot patch" as "$here" label certificaterequest mine certlet.io/node=elsewhere --overwrite
as "$here" delete certificaterequest mine

# The driver's role does not allow updates. So this tries the policy's rules for updates with a role that does.
k create role edit-requests --verb=patch,update --resource=certificaterequests.cert-manager.io
k create rolebinding edit-requests --role=edit-requests --serviceaccount="$NS:$release"
create "$here" mine "$node"
create "$elsewhere" theirs elsewhere
denied "another node's request, changed" "does not belong to elsewhere" \
	as "$elsewhere" annotate certificaterequest mine example.org/comment=x
# The policy of any certlet in the cluster denies these.
denied "another node's request, taken over" "denied request" \
	as "$elsewhere" label certificaterequest mine certlet.io/node=elsewhere --overwrite
denied "its own request, labelled as another node's" "denied request" \
	as "$elsewhere" label certificaterequest theirs "certlet.io/node=$node" --overwrite
as "$here" annotate certificaterequest mine example.org/comment=fine

# Pods' own requests, as in token-request mode.
k create role make-requests --verb=create --resource=certificaterequests.cert-manager.io
k create rolebinding app-makes-requests --role=make-requests --serviceaccount="$NS:app"
create "$app" of-app "$node"
create "$app" of-app-by-hand
denied "a pod's request for another node" "must be $node" create "$app" forged elsewhere
# People, even those who may do everything, and controllers.
by_hand() { request "$@" | k create -f -; }
denied "a person's request with the label" "must use a token that is bound to a pod" by_hand forged "$node"
by_hand by-hand
denied "the label, set later" "cannot be changed" k label certificaterequest by-hand "certlet.io/node=$node"
denied "the volume's label, set later" "cannot be changed" k label certificaterequest by-hand certlet.io/volume=x
denied "the volume's annotation, set later" "cannot be changed" k annotate certificaterequest by-hand certlet.io/volume-id=csi-x
denied "the label, removed" "cannot be changed" k label certificaterequest mine certlet.io/node-
denied "the label, of another node" "cannot be changed" k label certificaterequest mine certlet.io/node=elsewhere --overwrite
denied "the volume's annotation, added" "cannot be changed" k annotate certificaterequest mine certlet.io/volume-id=csi-x
k annotate certificaterequest by-hand example.org/comment=fine
k annotate certificaterequest mine example.org/reviewed=yes
# As cert-manager's controllers do.
k patch certificaterequest mine --subresource=status --type=merge -p '{"status":{"failureTime":"2026-01-01T00:00:00Z"}}'

# Nodes.
taints() { kubectl get node elsewhere -o 'jsonpath={.spec.taints[*].key}'; }
patch() { as "$1" patch node "$2" --type=merge -p "$3"; }
denied "another node, patched" "no node but the one" patch "$here" elsewhere '{"spec":{"taints":null}}'
denied "its own node, another taint removed" "may remove the taint certlet.io/not-ready" patch "$elsewhere" elsewhere '{"spec":{"taints":null}}'
denied "its own node, a taint added" "may remove the taint certlet.io/not-ready" \
	patch "$elsewhere" elsewhere "$(kubectl get node elsewhere -o json | jq '{spec: {taints: (.spec.taints + [{key: "new", effect: "NoExecute"}])}}')"
denied "its own node, labelled" "no label, annotation or cordon" patch "$elsewhere" elsewhere '{"metadata":{"labels":{"zone":"x"}}}'
denied "its own node, cordoned" "no label, annotation or cordon" patch "$elsewhere" elsewhere '{"spec":{"unschedulable":true}}'
# Kubernetes adds its own taints to a node without a kubelet. They stay.
patch "$elsewhere" elsewhere "$(kubectl get node elsewhere -o json | jq '{spec: {taints: [.spec.taints[] | select(.key != "certlet.io/not-ready")]}}')"
contains "the taints that are left" "$(taints)" other
if [[ $(taints) == *certlet.io/not-ready* ]]; then fail "the taint is still there"; fi

# Token-request mode: the driver's own account can create nothing, even if a role allows it to all accounts. Every other account can
# create requests only in its own namespace.
HELM_NO_WAIT=${NO_KUBELET:-} helm_install $release isolated.csi.certlet.io --set requesters.allNamespaces=true
k delete rolebinding app-makes-requests
uid_of() { k get pod "$1" -o 'jsonpath={.metadata.uid}'; }
owned() { # NAME NODE-LABEL OWNER-NAME OWNER-UID
	request "$1" "$2" | sed "s|^metadata: { |&ownerReferences: [{ apiVersion: v1, kind: Pod, name: $3, uid: $4 }], |"
}
create_owned() { owned "${@:2}" | as "$1" create -f -; } # TOKEN OWNED-ARGUMENTS
# The driver's request is for its own pod, so that no other rule denies it.
driver_uid=$(uid_of driver-here)
makes_none() { if owned probe "$node" driver-here "$driver_uid" | as "$here" create --dry-run=server -f -; then return 1; fi; }
wait_for 30 makes_none
denied "the driver's own request" "creates no CertificateRequests" create_owned "$here" forged "$node" driver-here "$driver_uid"
app_uid=$(uid_of app-here)
may_create_at_home() { owned probe "$node" app-here "$app_uid" | as "$app" create --dry-run=server -f -; }
in_default() { IN=default "$@"; }
stays_at_home() { if owned probe "$node" app-here "$app_uid" | IN=default as "$app" create --dry-run=server -f -; then return 1; fi; }
wait_for 30 may_create_at_home
wait_for 30 stays_at_home
create_owned "$app" at-home "$node" app-here "$app_uid"
denied "a request in another namespace" "in its own namespace only" \
	in_default create_owned "$app" abroad "$node" app-here "$app_uid"

# The owner reference and the node label must be those of the pod that the token is bound to. `app-there` has the same service
# account, so that only the token tells the two pods apart.
pod_on app-there elsewhere app
there=$(token_of app-there app)
there_uid=$(uid_of app-there)
unbound_app=$(k create token app)
needs_an_owner() { if request probe "$node" | as "$app" create --dry-run=server -f -; then return 1; fi; }
wait_for 30 needs_an_owner
denied "a request without an owner" "must be only the pod app-here" create "$app" forged "$node"
denied "a request for another pod" "must be only the pod app-here" create_owned "$app" forged "$node" app-there "$there_uid"
# More than one policy denies this.
denied "a request for another pod, on that pod's node" "denied request" \
	create_owned "$app" forged elsewhere app-there "$there_uid"
denied "a request for an earlier pod of the same name" "must be only the pod app-here" \
	create_owned "$app" forged "$node" app-here 00000000-0000-0000-0000-000000000000
two_owners() {
	owned forged "$node" app-here "$app_uid" |
		sed "s|ownerReferences: \[|&{ apiVersion: v1, kind: Pod, name: app-there, uid: $there_uid }, |" | as "$app" create -f -
}
denied "a request for two pods" "must be only the pod app-here" two_owners
denied "a request with the label of another node" "must be $node" create_owned "$app" forged elsewhere app-here "$app_uid"
denied "a request with a token that is not bound to a pod" "bound to a pod" \
	create_owned "$unbound_app" forged "$node" app-here "$app_uid"
create_owned "$there" of-there elsewhere app-there "$there_uid"
# Requests without the label are none of certlet's.
create "$app" by-hand-at-home

# A sidecar's request has no label of a node. It names the pod in the owner reference, in a label and in an annotation.
as_sidecar() { # NAME OWNER-NAME OWNER-UID [VOLUME-UID] [NODE-LABEL]
	cat <<-YAML
		apiVersion: cert-manager.io/v1
		kind: CertificateRequest
		metadata:
		  name: $1
		  labels: { certlet.io/volume: sidecar-${4:-$3}, ${5:+"certlet.io/node: $5"} }
		  annotations: { certlet.io/volume-id: sidecar-${4:-$3} }
		  ownerReferences: [{ apiVersion: v1, kind: Pod, name: $2, uid: $3 }]
		spec: { request: LS0t, issuerRef: { name: nobody } }
	YAML
}
create_as_sidecar() { as_sidecar "${@:2}" | as "$1" create -f -; } # TOKEN AS-SIDECAR-ARGUMENTS
denied "a sidecar's request for another pod" "must be only the pod app-here" create_as_sidecar "$app" forged app-there "$there_uid"
denied "a sidecar's request that names another pod's sidecar" "must be sidecar-$app_uid" create_as_sidecar "$app" forged app-here "$app_uid" "$there_uid"
denied "a sidecar's request that a driver would watch" "must not be there" create_as_sidecar "$app" forged app-here "$app_uid" "" "$node"
denied "a sidecar's request with a token that is not bound to a pod" "bound to a pod" create_as_sidecar "$unbound_app" forged app-here "$app_uid"
create_as_sidecar "$app" of-sidecar app-here "$app_uid"
denied "a sidecar's request, given to a driver later" "cannot be changed" k label certificaterequest of-sidecar "certlet.io/node=$node"
denied "a sidecar's request, given to another pod's sidecar" "cannot be changed" k label certificaterequest of-sidecar "certlet.io/volume=sidecar-$there_uid" --overwrite

# The same where the drivers make requests as their own account: sidecars never do.
HELM_NO_WAIT=${NO_KUBELET:-} helm_install $release isolated.csi.certlet.io --set certManager.tokenRequest.enabled=false
k create rolebinding app-makes-requests --role=make-requests --serviceaccount="$NS:app"
# Token-request mode denies this request, because it has no owner: so the policies have changed when it is allowed.
in_own_account_mode() { request probe "$node" | as "$app" create --dry-run=server -f -; }
wait_for 30 in_own_account_mode
denied "a sidecar's request for another pod" "must be only the pod app-here" create_as_sidecar "$app" forged app-there "$there_uid"
create_as_sidecar "$app" of-sidecar-too app-here "$app_uid"
