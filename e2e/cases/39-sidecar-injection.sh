#!/usr/bin/env bash
# The sidecar without a DaemonSet, in a namespace that enforces the profile "restricted" of PodSecurity: the chart's admission policies
# inject it into annotated pods, which have their certificate before their own init containers start. It is renewed in place, or with a
# restart of the pod's containers. A Job's pod gets one and completes. Malformed annotations are refused by name, and other pods are left
# alone. An upgrade changes no running pod.
# needs: own-cluster certlet
# limit: 500
. "$(dirname "$0")/../lib.sh"

if ! kubectl get --raw /apis/admissionregistration.k8s.io/v1 | jq -e '[.resources[].name] | index("mutatingadmissionpolicies")' >/dev/null; then
	skip "this server has no MutatingAdmissionPolicy v1 (Kubernetes 1.36)"
fi

release=$NS pods=$NS-pods
# The driver of the other cases must not be what gives these pods their certificates.
drivers() {
	kubectl -n certlet patch daemonset certlet --type=merge --patch "{\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"e2e\":$1}}}}}"
	kubectl -n certlet rollout status daemonset/certlet --timeout=90s
}
end() {
	local status=$?
	if [ $status != 0 ]; then
		kubectl -n "$pods" describe pods || true
		kubectl -n "$pods" logs --all-containers --prefix --selector app --tail=30 || true
	fi
	kubectl delete namespace "$pods" --ignore-not-found --timeout=90s || true
	NS=$release helm_end sidecars
	kubectl delete mutatingadmissionpolicybinding,mutatingadmissionpolicy z-e2e-late --ignore-not-found || true
	drivers null || true
	rm -f "${as_app:-}"
	return $status
}
trap end EXIT
drivers '"nowhere"'
new_namespace "$pods"
kubectl label namespace "$pods" pod-security.kubernetes.io/enforce=restricted
kubectl -n "$pods" create serviceaccount web
install() { # HELM-FLAG...
	HELM_NO_WAIT=1 NS=$release helm_install sidecars csi.certlet.io --values "$E2E/../charts/certlet/tests/inject.yaml" \
		--set "requesters.namespaces={$pods},certManager.defaultIssuer.name=e2e-ca" "$@"
}
install
if helm get manifest sidecars --namespace "$release" | grep -E '^kind: (DaemonSet|CSIDriver|ServiceAccount)$'; then fail "the chart has installed a part of the driver"; fi
NS=$pods

# injected_pod NAME ANNOTATION=VALUE...: prints a pod of the profile "restricted" that reads its certificate at /tls, first in an init
# container. An annotation without a prefix is an attribute. SPEC (more lines of the pod's spec) may be set before the call.
injected_pod() {
	local name=$1 annotation
	shift
	cat <<-YAML
		apiVersion: v1
		kind: Pod
		metadata:
		  name: $name
		  labels: { app: $name }
		  annotations:
		    e2e: "1"
	YAML
	for annotation; do
		if [[ ${annotation%%=*} != */* ]]; then annotation=csi.certlet.io/$annotation; fi
		printf "    %s: '%s'\n" "${annotation%%=*}" "${annotation#*=}"
	done
	cat <<-YAML
		spec:
		  serviceAccountName: web
		  automountServiceAccountToken: false
		  terminationGracePeriodSeconds: 5
		  securityContext: { runAsNonRoot: true, runAsUser: 10001, fsGroup: 10002, seccompProfile: { type: RuntimeDefault } }
		  initContainers:
		    - name: prepare
		      image: $POD_IMAGE
		      imagePullPolicy: IfNotPresent
		      command: [sh, -c, "openssl verify -CAfile /tls/ca.crt /tls/tls.crt"]
		      securityContext: &security { allowPrivilegeEscalation: false, capabilities: { drop: [ALL] } }
		  containers:
		    - name: main
		      image: $POD_IMAGE
		      imagePullPolicy: IfNotPresent
		      command: [sleep, infinity]
		      securityContext: *security
		    # Another user, who reads the key as the pod's group.
		    - name: second
		      image: $POD_IMAGE
		      imagePullPolicy: IfNotPresent
		      command: [sleep, infinity]
		      securityContext: { runAsUser: 10003, allowPrivilegeEscalation: false, capabilities: { drop: [ALL] } }
	YAML
	if [ -n "${SPEC:-}" ]; then printf '%s\n' "$SPEC" | sed 's/^/  /'; fi
}
inject=certlet.io/inject path=certlet.io/inject-mount-path=/tls

# What is refused, and what the author is told.
refused() { # MESSAGE ANNOTATION...
	local message=$1 out
	shift
	if out=$(injected_pod refused "$@" | k apply --dry-run=server -f - 2>&1); then fail "not refused: $*"; fi
	contains "what is said of $*" "$out" "denied request: $message"
}
policies_work() { ! injected_pod refused $inject=x | k apply --dry-run=server -f -; }
wait_for 30 policies_work
refused "$inject: \"yes\" is not accepted; accepted: \"true\", \"once\", \"false\"" $inject=yes
refused "$inject: \"\" is not accepted" $inject=
refused "certlet.io/inject-mount: \"/tls\": unknown annotation; accepted: certlet.io/inject, certlet.io/inject-mount-path," $inject=true certlet.io/inject-mount=/tls
refused "certlet.io/injection: \"true\": unknown annotation" certlet.io/injection=true
for wrong in tls ./tls /tls/ / "" /a/../b /a/./b /a:b "/a b"; do
	refused "certlet.io/inject-mount-path: \"$wrong\" is not accepted; accepted: an absolute path" $inject=true "certlet.io/inject-mount-path=$wrong"
done
refused "certlet.io/inject-containers: \"main, third\": the pod has no container \"third\"; accepted: a comma list of main, second, prepare" \
	$inject=true "certlet.io/inject-containers=main, third"
refused "certlet.io/inject-containers: \"\": the pod has no container \"\"" $inject=true certlet.io/inject-containers=
refused "certlet.io/inject-on-renewal: \"reload\" is not accepted; accepted: \"restart\"" $inject=true certlet.io/inject-on-renewal=reload
refused "certlet.io/inject-on-renewal: \"restart\" is not accepted with certlet.io/inject: \"once\"" $inject=once certlet.io/inject-on-renewal=restart
changed() { # YQ-LIKE SED-PROGRAM MESSAGE ANNOTATION...
	local program=$1 message=$2 out
	shift 2
	if out=$(injected_pod refused "$@" | sed -e "$program" | k apply --dry-run=server -f - 2>&1); then fail "not refused: $program"; fi
	contains "what is said of $program" "$out" "denied request: $message"
}
changed 's/name: second/name: certlet/' "$inject: \"true\" is not accepted, because the pod has a container certlet of its own; accepted:" $inject=true
changed 's/name: prepare/name: certlet/' "$inject: \"once\" is not accepted, because the pod has a init container certlet of its own" $inject=once
SPEC='volumes: [{ name: certlet, emptyDir: {} }, { name: certlet-pod, emptyDir: {} }]' \
	refused "$inject: \"true\" is not accepted, because the pod has a volume certlet and a volume certlet-pod of its own" $inject=true
changed 's/name: main/&\n      volumeMounts: [{ name: other, mountPath: \/tls\/private }]/; s/^spec:/&\n  volumes: [{ name: other, emptyDir: {} }]/' \
	"certlet.io/inject-mount-path: \"/tls\" is not accepted, because the container main mounts another volume there or below" $inject=true $path
SPEC='nodeSelector: { kubernetes.io/os: windows }' refused "$inject: \"true\" is not accepted in a Windows pod" $inject=true

# What is injected, and into what.
admitted() { # NAME JQ-FILTER: prints what the filter makes of the pod on stdin, as it would be stored.
	k apply --dry-run=server -o json -f - | jq -rc "$1"
}
equal "the init containers" "$(injected_pod app $inject=true | admitted '[.spec.initContainers[].name]')" '["certlet","prepare"]'
mounts='[(.spec.initContainers + .spec.containers)[] | select(.name != "certlet") | select(any(.volumeMounts[]?; .name == "certlet")) | .name]'
equal "who has the certificate" "$(injected_pod app $inject=true | admitted "$mounts")" '["prepare","main","second"]'
equal "who has the certificate" "$(injected_pod app $inject=true "certlet.io/inject-containers=main, prepare" | admitted "$mounts")" '["prepare","main"]'
equal "where" "$(injected_pod app $inject=true $path | admitted '.spec.containers[0].volumeMounts')" '[{"mountPath":"/tls","name":"certlet","readOnly":true}]'
for not in e2e=2 $inject=false; do
	equal "a pod with $not" "$(injected_pod app "$not" | admitted '[.spec | .. | strings | select(test("certlet"))]')" '[]'
done
restarts='.spec.initContainers[0] | [.restartPolicy, .restartPolicyRules, (.args | index("--once") != null), (.args | index("--on-renewal=exit=88") != null), has("startupProbe")]'
equal "the sidecar" "$(injected_pod app $inject=true | admitted "$restarts")" '["Always",null,false,false,true]'
equal "the sidecar with restarts" "$(injected_pod app $inject=true certlet.io/inject-on-renewal=restart | admitted "$restarts")" \
	'["Always",[{"action":"RestartAllContainers","exitCodes":{"operator":"In","values":[88]}}],false,true,true]'
equal "the init container" "$(injected_pod app $inject=once | admitted "$restarts")" '[null,null,true,false,false]'
user='.spec.initContainers[0].securityContext.runAsUser'
equal "the sidecar's user in a pod with a user" "$(injected_pod app $inject=true | admitted "$user")" null
equal "the sidecar's user if only a container has one" "$(injected_pod app $inject=true | sed 's/runAsUser: 10001, //' | admitted "$user")" 10003
equal "the sidecar's user if nobody has one" "$(injected_pod app $inject=true | sed 's/runAsUser: [0-9]*, //' | admitted "$user")" 65532
# A pod with neither init containers nor volumes, in a namespace that does not restrict it.
equal "a pod with nothing to add to" "$(kubectl -n default apply --dry-run=server -o json -f - <<-YAML | jq -c '[.spec.initContainers[].name, .spec.volumes[].name]'
	apiVersion: v1
	kind: Pod
	metadata: { name: bare, annotations: { $inject: "true" } }
	spec: { automountServiceAccountToken: false, containers: [{ name: main, image: $POD_IMAGE }] }
YAML
)" '["certlet","certlet","certlet-pod","certlet-token"]'
# A copy of an injected pod is not injected again.
copy=$(injected_pod app $inject=true $path | k apply --dry-run=server -o json -f - | jq '{apiVersion, kind, metadata: {name: "copy", annotations: .metadata.annotations}, spec}')
equal "a copy" "$(k apply --dry-run=server -o json -f - <<<"$copy" | jq -S .spec)" "$(jq -S .spec <<<"$copy")"
# A container that a later policy adds has the certificate too, and may be named.
kubectl apply -f - <<-YAML
	apiVersion: admissionregistration.k8s.io/v1
	kind: MutatingAdmissionPolicy
	metadata: { name: z-e2e-late }
	spec:
	  failurePolicy: Fail
	  reinvocationPolicy: Never
	  matchConstraints:
	    namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: $pods } }
	    resourceRules: [{ apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods] }]
	  mutations:
	    - patchType: JSONPatch
	      jsonPatch:
	        expression: >-
	          object.spec.containers.exists(c, c.name == "late") ? [] :
	          [JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{name: "late", image: "late",
	          securityContext: Object.spec.containers.securityContext{allowPrivilegeEscalation: false,
	          capabilities: Object.spec.containers.securityContext.capabilities{drop: ["ALL"]}}}}]
	---
	apiVersion: admissionregistration.k8s.io/v1
	kind: MutatingAdmissionPolicyBinding
	metadata: { name: z-e2e-late }
	spec: { policyName: z-e2e-late }
YAML
late() { [ "$(injected_pod app $inject=true "$@" | admitted "$mounts")" = "$expected" ]; }
expected='["prepare","main","second","late"]'
wait_for 30 late
expected='["late"]'
late certlet.io/inject-containers=late || fail "a container that is added later cannot be named"
kubectl delete mutatingadmissionpolicybinding,mutatingadmissionpolicy z-e2e-late
expected='["prepare","main","second"]'
wait_for 30 late

# The certificate, requested as the pod's own service account. The init container has verified it, or the pod would not be ready.
injected_pod app $inject=true $path dns-names=app.test duration=30s renew-before=20s | k apply -f -
running app
equal "who made the request" "$(k get certificaterequests -o 'jsonpath={.items[*].spec.username}')" "system:serviceaccount:$NS:web"
contains "the names in the certificate" "$(x509 app /tls/tls.crt -ext subjectAltName)" DNS:app.test
equal "who reads the key" "$(in_pod app stat -Lc '%a %u %g' /tls/tls.key)" "440 10001 10002"
equal "the key that another user reads" "$(k exec app -c second -- openssl pkey -in /tls/tls.key -pubout)" "$(x509 app /tls/tls.crt -pubkey)"
if in_pod app touch /tls/file; then fail "a container can write into the volume"; fi
in_pod app sh -c '! test -e /var/run/secrets/kubernetes.io' || fail "the container has a token, which its pod does not want"
contains "what certlet status shows" "$(k exec app -c certlet -- certlet status)" e2e-ca

# A request in the name of another pod's sidecar is refused, whoever in the namespace makes it.
forged() { # MESSAGE JQ-FILTER KUBECTL-FLAG...
	local message=$1 filter=$2 out
	shift 2
	out=$(k get certificaterequests -o json | jq "{apiVersion: \"cert-manager.io/v1\", kind: \"CertificateRequest\", metadata: (.items[0].metadata |
		{name: \"forged\", namespace, labels, annotations, ownerReferences}), spec: (.items[0].spec | {request, issuerRef})} | $filter" |
		k create --dry-run=server -f - "$@" 2>&1) && fail "not refused: $filter $*"
	contains "what is said of $filter $*" "$out" "$message"
}
forged "must use a token that is bound to a pod" . --as="system:serviceaccount:$NS:default"
as_app=$(mktemp)
kubectl config view --minify --raw -o json | jq --arg token "$(k create token web --bound-object-kind=Pod --bound-object-name=app)" \
	'.users[0].user = {$token}' >"$as_app"
forged "metadata.ownerReferences: must be only the pod app" '.metadata.ownerReferences[0].uid = "other"' --kubeconfig="$as_app"
forged "certlet.io/volume, certlet.io/volume-id: must be sidecar-" '.metadata.annotations["certlet.io/volume-id"] = "sidecar-other"' --kubeconfig="$as_app"

# Renewal in place.
before=$(serial app)
renewed() { [ "$(serial app)" != "$before" ]; }
wait_for 40 renewed
in_pod app openssl verify -CAfile /tls/ca.crt /tls/tls.crt
restarts() { k get pod "$1" -o json | jq '[.status | (.containerStatuses + .initContainerStatuses)[].restartCount] | add'; }
equal "restarts" "$(restarts app)" 0
sleep 1
equal "the number of requests" "$(request_count)" 1

# Renewal with a restart of all containers, in the same pod.
injected_pod restarting $inject=true $path certlet.io/inject-on-renewal=restart dns-names=restarting.test duration=1m renew-before=40s | k apply -f -
running restarting
uid=$(k get pod restarting -o 'jsonpath={.metadata.uid}') before=$(serial restarting)
started() { k get pod restarting -o json | jq -r '.status.containerStatuses[] | select(.name == "main") | .state.running.startedAt'; }
start=$(started)
restarted() { [ "$(started)" != "$start" ] && [ "$(started)" != null ]; }
wait_for 90 restarted
running restarting
[ "$(serial restarting)" != "$before" ] || fail "the restarted container has the certificate from before"
equal "the pod's uid" "$(k get pod restarting -o 'jsonpath={.metadata.uid}')" "$uid"
k delete pod restarting --timeout=60s

# Jobs: with one certificate, and with a sidecar that ends with the Job's own containers.
job() { # MODE
	injected_pod "job-$1" $inject="$1" $path "dns-names=job-$1.test" | kubectl create --dry-run=client -o json -f - | jq '{
		apiVersion: "batch/v1", kind: "Job", metadata: {name: .metadata.name},
		spec: {backoffLimit: 0, template: {metadata: (.metadata | {labels, annotations}), spec: (.spec + {restartPolicy: "Never"} |
			.containers[].command = ["openssl", "verify", "-CAfile", "/tls/ca.crt", "/tls/tls.crt"])}}}' | k apply -f -
}
job once
job true
k wait --for=condition=complete job/job-once job/job-true --timeout=90s
# A workload's author is warned at once, and finds why there are no pods in its Events.
warned() { # TEXT SED-PROGRAM
	contains "the warning" "$(injected_pod web $inject=true | sed -e "$2" | kubectl create --dry-run=client -o json -f - | jq '{
		apiVersion: "apps/v1", kind: "Deployment", metadata: {name: .metadata.name}, spec: {selector: {matchLabels: {app: "web"}},
		template: {metadata: (.metadata | {labels, annotations}), spec: .spec}}}' | k apply --dry-run=server -f - 2>&1)" "$1"
}
warned "deployment.apps/web created" ""
warned "$inject: \"yes\" is not accepted" "s/'true'/'yes'/"
warned "those can read the key of its certificate that run as root or as user 10001" 's/fsGroup: 10002, //'
contains "the warning" "$(job no 2>&1)" "Warning: Validation failed for ValidatingAdmissionPolicy 'sidecars-inject-templates'"
told() { k get events --field-selector involvedObject.name=job-no -o json | jq -e '[.items[].message | select(contains("certlet.io/inject: \"no\" is not accepted"))] | length > 0'; }
wait_for 30 told

# The examples, which are written by hand.
example() { # FILE
	sed -e "s|namespace: shop|namespace: $NS|; s|internal-ca|e2e-ca|; s|image: ghcr.*|image: $CERTLET_IMAGE|" \
		-e "s|^\( *\)image: registry.*|\1image: $POD_IMAGE\n\1command: [sh, -c, 'openssl verify -CAfile \$0/ca.crt \$0/tls.crt \&\& $2', /var/run/secrets/certlet.io]|" \
		"$E2E/../examples/sidecar/$1.yaml" | k apply -f -
}
example rbac true
example pod "sleep infinity"
example job true
running web
k wait --for=condition=complete job/report --timeout=90s

# An upgrade: running pods stay as they are, new ones get the new sidecar.
uid=$(k get pod app -o 'jsonpath={.metadata.uid}') spec=$(k get pod app -o json | jq -S .spec)
install --set-string image.tag=next
image='.spec.initContainers[0].image'
upgraded() { [[ $(injected_pod new $inject=true | admitted "$image") = *:next ]]; }
wait_for 30 upgraded
equal "the running pod's uid" "$(k get pod app -o 'jsonpath={.metadata.uid}')" "$uid"
equal "the running pod" "$(k get pod app -o json | jq -S .spec)" "$spec"
before=$(serial app)
wait_for 40 renewed
equal "restarts" "$(restarts app)" 0

# With permission for all namespaces each service account deletes in its own namespace only. Kubernetes' controllers delete everywhere.
install --set requesters.allNamespaces=true
# That of a pod whose certificate is not renewed meanwhile.
request=certificaterequest/$(k get certificaterequests -o json | jq -r '.items[] | select(.metadata.ownerReferences[0].name == "web") | .metadata.name')
delete_as() { k delete "$request" --dry-run=server --as="system:serviceaccount:$1" 2>&1; }
forbidden() { [[ $(delete_as "$release:default") == *"may create and delete CertificateRequests in its own namespace only"* ]]; }
wait_for 30 forbidden
delete_as "$NS:web"
delete_as kube-system:generic-garbage-collector
delete_as kube-system:namespace-controller

# An uninstall leaves running pods alone, and nothing of the injection.
helm uninstall sidecars --namespace "$release" --wait
equal "what the uninstall left" "$(kubectl get mutatingadmissionpolicies,validatingadmissionpolicies,clusterroles -o name | grep -c /sidecars || true)" 0
equal "the running pod's uid" "$(k get pod app -o 'jsonpath={.metadata.uid}')" "$uid"
in_pod app openssl verify -CAfile /tls/ca.crt /tls/tls.crt
