#!/usr/bin/env bash
# `certlet sidecar` where no driver runs, in pods as Fargate allows them: not root, a read-only root file system, no capability, nothing of
# the host. Each pod asks with its own service account's token.
# - the pod of docs/sidecar.md starts as it stands there, with another image and issuer
# - who may read the key, with fsGroup and without
# - nginx, a Go program with files and one with the socket talk mutual TLS through three renewals, and no request fails
# - a Job ends though its sidecar runs, and one whose certificate comes once
# - the container rule RestartAllContainers restarts the pod's containers at a renewal
# - what `kubectl describe pod` says when there is no certificate
# needs: certlet own-cluster nginx spiffe-peer
# limit: 600
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/sidecar.sh"

sidecar_begin
"$E2E_CLUSTER/image" nginx:1 "$E2E_RUN/bin/nginx" "$(command -v busybox)"
"$E2E_CLUSTER/image" spiffe-pod:1 "$(command -v busybox)" "$E2E_RUN/bin/spiffe-peer"

# The namespace is as strict as it says.
refused() { # WHAT FIELD: a pod with that field
	local output
	if output=$(k apply -f - 2>&1 <<<"{ apiVersion: v1, kind: Pod, metadata: { name: refused }, spec: { containers: [{ name: main, image: '$POD_IMAGE'$2 }] } }"); then
		fail "$1: was allowed"
	fi
	contains "$1" "$output" 'violates PodSecurity "restricted:latest"'
}
refused "a privileged pod" ", securityContext: { privileged: true }"
refused "a pod that may be root" ""

# The pod of the page.
sed -n '/^apiVersion: v1$/,/^```/p' "$E2E/../docs/sidecar.md" | sed -e '/^```/d' -e "s|namespace: shop|namespace: $NS|" -e 's|internal-ca|e2e-ca|' \
	-e 's|serviceAccountName: web|serviceAccountName: app|' -e "s|image: ghcr.io/certlet/certlet|image: $CERTLET_IMAGE\n      imagePullPolicy: IfNotPresent|" \
	-e "s|image: registry.example.org/web|image: $POD_IMAGE\n      imagePullPolicy: IfNotPresent\n      command: [sleep, infinity]\n      securityContext: { $restricted }|" |
	k apply -f -
running web
contains "the certificate of the page's pod" "$(k exec web -c web -- openssl x509 -in $DIRECTORY/tls.crt -noout -ext subjectAltName)" "DNS:web.shop.svc.cluster.local"

# Attributes from annotations, from a variable and from flags.
sidecar_pod with-group common-name=with-group duration=1h | k apply -f -
MAIN=", runAsUser: 10002, runAsGroup: 10002" sidecar_pod same-group common-name=same-group duration=1h | k apply -f -
attributes='csi.certlet.io/issuer-name=e2e-ca\nissuer-kind=ClusterIssuer\ncommon-name=by-variable\nduration=1h'
SECURITY='' ENV=", { name: CERTLET_ATTRIBUTES, value: \"$attributes\" }" sidecar_pod without-group | sed '/^    csi.certlet.io/d' | k apply -f -
SECURITY='' MAIN=", runAsUser: 10002, runAsGroup: 10002" sidecar_pod other-user |
	sed -e '/^    csi.certlet.io/d' -e '/CERTLET_ATTRIBUTES_FILE/d' \
		-e 's|args: .*|args: [sidecar, --attribute=issuer-name=e2e-ca, --attribute=issuer-kind=ClusterIssuer, --attribute=common-name=by-flags, --attribute=duration=1h]|' |
	k apply -f -
MAIN=", runAsUser: 10002, runAsGroup: 10002" sidecar_pod writer common-name=writer duration=1h | sed 's|mountPath: /tls, readOnly: true|mountPath: /tls|' | k apply -f -
running with-group same-group without-group other-user writer
contains "the certificate by annotations" "$(k exec with-group -c main -- openssl x509 -in /tls/tls.crt -noout -subject)" "CN = with-group"
contains "the certificate by a variable" "$(k exec without-group -c main -- openssl x509 -in /tls/tls.crt -noout -subject)" "CN = by-variable"
contains "the certificate by flags" "$(k exec other-user -c main -- openssl x509 -in /tls/tls.crt -noout -subject)" "CN = by-flags"
for pod in with-group same-group without-group; do
	k exec $pod -c main -- openssl verify -CAfile /tls/ca.crt /tls/tls.crt
	equal "the key's public half of $pod" "$(k exec $pod -c main -- openssl pkey -in /tls/tls.key -pubout)" "$(k exec $pod -c main -- openssl x509 -in /tls/tls.crt -noout -pubkey)"
done

# Who may read the key.
mode() { k exec "$1" -c main -- stat -L -c %u:%g:%a "/tls/$2"; }
equal "the key with fsGroup" "$(mode with-group tls.key)" 10001:10001:440
equal "the key without fsGroup" "$(mode without-group tls.key)" 10001:10001:400
if k exec other-user -c main -- cat /tls/tls.key >/dev/null 2>&1; then fail "another user reads a key without fsGroup"; fi
k exec other-user -c main -- cat /tls/tls.crt >/dev/null
if k exec same-group -c main -- ls /tls/..certlet >/dev/null 2>&1; then fail "another user reads the sidecar's state"; fi
if k exec writer -c main -- sh -c 'rm -f /tls/..data || mv /tls/tls.key /tls/old || rm -f /tls/tls.crt' 2>/dev/null; then fail "another user replaces files"; fi
if k exec with-group -c main -- touch /tls/file 2>/dev/null; then fail "the program writes into the directory"; fi

# The request: by the pod's own account, for no driver.
request=$(request_of with-group .)
uid=$(k get pod with-group -o 'jsonpath={.metadata.uid}')
equal "who asks" "$(jq -r .spec.username <<<"$request")" "system:serviceaccount:$NS:app"
equal "the label of a node" "$(jq -r '.metadata.labels["certlet.io/node"]' <<<"$request")" null
equal "the volume" "$(jq -r '.metadata.annotations["certlet.io/volume-id"]' <<<"$request")" "sidecar-$uid"
equal "the owner" "$(jq -r '.metadata.ownerReferences[] | .kind + "/" + .uid' <<<"$request")" "Pod/$uid"
contains "the token's pod" "$(jq -c .spec.extra <<<"$request")" "$uid"
status=$(certlet_in with-group status)
echo "$status"
contains "certlet status" "$status" with-group

# Mutual TLS through renewals. Each client ends after three renewals of both sides.
lifetime=(duration=20s renew-before=10s)
renewed=("${lifetime[@]}" 'key-usages=digital signature,server auth,client auth')
COMMAND='[mtls-peer, server]' sidecar_pod files dns-names=files.test "${renewed[@]}" | k apply -f -
sed -n '/nginx.conf: |/,/^---/p' "$E2E/../examples/edge/nginx.yaml" | sed -e '1d;$d' -e 's/^    //' \
	-e '/proxy_set_header/d' -e 's|proxy_pass .*|return 200 "$ssl_client_serial";|' >"$work/nginx.conf"
sed -n '/run.sh: |/,/nginx.conf: |/p' "$E2E/../examples/edge/nginx.yaml" | sed -e '1d;$d' -e 's/^    //' >"$work/run.sh"
k create configmap edge --from-file="$work/nginx.conf" --from-file="$work/run.sh"
COMMAND='[sh, /etc/edge/run.sh]' IMAGE=localhost/nginx:1 MOUNTS=', { name: edge, mountPath: /etc/edge }, { name: tmp, mountPath: /tmp }' \
	VOLUMES=', { name: edge, configMap: { name: edge } }, { name: tmp, emptyDir: {} }' \
	sidecar_pod nginx dns-names=nginx.test "${renewed[@]}" | k apply -f -
socket=(spiffe=true socket-file=socket files=false "${lifetime[@]}")
id=spiffe://example.org/ns/$NS/sa/app
COMMAND="[spiffe-peer, server, -socket, 'unix:///tls/socket', -peer, '$id']" IMAGE=localhost/spiffe-pod:1 sidecar_pod socket "${socket[@]}" | k apply -f -
running files nginx socket
address() { k get pod "$1" -o 'jsonpath={.status.podIP}'; }
listens() { k exec "$1" -c main -- sh -c "netstat -ltn | grep -q :8443"; }
for pod in files nginx socket; do wait_for 20 listens $pod; done
export POD='restartPolicy: Never'
for pod in files nginx; do
	COMMAND="[mtls-peer, client, -connect, '$(address $pod):8443', -server-name, $pod.test, -parallel, '4', -interval, 10ms, -until-serials, '4', -timeout, 120s]" \
		sidecar_pod to-$pod dns-names=to-$pod.test "${renewed[@]}" | k apply -f -
done
COMMAND="[spiffe-peer, client, -socket, 'unix:///tls/socket', -peer, '$id', -connect, '$(address socket):8443', -until-serials, '4', -timeout, 120s]" \
	IMAGE=localhost/spiffe-pod:1 sidecar_pod to-socket "${socket[@]}" | k apply -f -

# Meanwhile: Jobs.
job() { # NAME: the Job of a pod that is printed to this command
	printf 'apiVersion: batch/v1\nkind: Job\nmetadata: { name: %s }\nspec:\n  backoffLimit: 0\n  template:\n' "$1"
	sed -e '/^apiVersion:/d; /^kind:/d; /^  name:/d; s/^/    /'
}
export COMMAND='[openssl, verify, -CAfile, /tls/ca.crt, /tls/tls.crt]'
sidecar_pod job common-name=job | job beside | k apply -f -
ENV=', { name: CERTLET_ONCE, value: "true" }' sidecar_pod job common-name=job | sed '/restartPolicy: Always/d; /startupProbe:/d' | job once | k apply -f -
unset COMMAND
for name in beside once; do
	k wait --for=condition=complete "job/$name" --timeout=60s
	ended() { k get pods -l "job-name=$name" -o json | jq -e '.items[0].status | .phase == "Succeeded" and .initContainerStatuses[0].state.terminated != null'; }
	wait_for 30 ended
	equal "the exit code of certlet in $name" "$(k get pods -l "job-name=$name" -o 'jsonpath={.items[0].status.initContainerStatuses[0].state.terminated.exitCode}')" 0
done
unset POD

# Meanwhile: what `kubectl describe pod` says.
sidecar_pod wrong-attribute common-name=wrong isuer-kind=ClusterIssuer | k apply -f -
k create serviceaccount nobody
ACCOUNT=nobody sidecar_pod without-rights common-name=without-rights | k apply -f -
ISSUER=missing sidecar_pod without-issuer common-name=without-issuer | k apply -f -
sidecar_pod wrong-owner common-name=wrong owner=4242 | k apply -f -
wait_for 60 describes wrong-attribute "csi.certlet.io/isuer-kind"
wait_for 60 describes wrong-owner "csi.certlet.io/owner"
for pod in wrong-attribute wrong-owner; do
	echo "note: $pod ended with $(ended_with $pod)"
	contains "how $pod ended" "$(ended_with $pod)" "2 "
done
wait_for 60 describes without-rights "cannot create resource"
failing() { k describe pod "$1" | sed -n 's/.*\(Startup probe failed.*\)/\1/p' | tail -n 1; }
echo "note: without-rights: $(failing without-rights)"
# Soon, because the kubelet records 25 Events of a pod only.
names_issuer() { k get events --field-selector involvedObject.name=without-issuer -o json | jq -r '.items[].message' | grep -q "Startup probe failed.*missing"; }
wait_for 30 names_issuer
echo "note: without-issuer: $(failing without-issuer)"
k create rolebinding nobody --role=sidecar --serviceaccount="$NS:nobody"
running without-rights

# Meanwhile: a program that cannot read new files is restarted with the pod's other containers.
if [ "$(kubectl version -o json | jq -r '.serverVersion.minor | tonumber')" -ge 36 ]; then
	ENV=', { name: CERTLET_ON_RENEWAL, value: exit=88 }' \
		SIDECAR='restartPolicyRules: [{ action: RestartAllContainers, exitCodes: { operator: In, values: [88] } }]' \
		sidecar_pod restarted common-name=restarted duration=60s renew-before=40s | k apply -f -
	running restarted
	before=$(sidecar_serial restarted)
	restarts_of_main() { k get pod restarted -o 'jsonpath={.status.containerStatuses[0].restartCount}'; }
	again() { [ "$(restarts_of_main)" -ge 1 ] && k wait --for=condition=ready pod/restarted --timeout=1s; }
	wait_for 60 again
	equal "the certificates that were asked for" "$(request_of restarted .metadata.name | wc -l)" 2
	[ "$(sidecar_serial restarted)" != "$before" ] || fail "the restarted program has the old certificate"
fi

# The clients.
over() { [[ $(k get pod "$1" -o 'jsonpath={.status.phase}') =~ Succeeded|Failed ]]; }
for pod in files nginx socket; do
	wait_for 150 over to-$pod
	counters=$(k logs to-$pod -c main | grep '^{' | tail -n 1)
	echo "note: $pod: $counters"
	equal "failed requests of $pod" "$(jq .failed <<<"$counters")" 0
	[ "$(jq '[.peer_serials, .own_serials] | min' <<<"$counters")" -ge 4 ] || fail "$pod: fewer than three renewals"
	equal "how the client's pod ended" "$(k get pod to-$pod -o 'jsonpath={.status.phase}')" Succeeded
done
for pod in files nginx socket; do equal "restarts of the sidecar of $pod" "$(sidecar_restarts $pod)" 0; done
equal "the files of a volume with the socket only" "$(k exec socket -c main -- ls /tls)" socket
