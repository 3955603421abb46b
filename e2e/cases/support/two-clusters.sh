# What the cases of two clusters share. A case sources this file after lib.sh. Each cluster has a certlet of its own, as the driver
# DRIVER, whose volumes have the anchors of the ConfigMap `roots`.
# shellcheck shell=bash

export DRIVER=two.csi.certlet.io
RELEASE=two
work=$(mktemp -d)

# on CLUSTER COMMAND...: runs a command or a function against cluster 1 or 2. Both API servers can be reached from here.
on() {
	local -x KUBECONFIG=$E2E_HOME/cluster/kube/admin
	if [ "$1" != 1 ]; then KUBECONFIG=$E2E_HOME/cluster-$1/kube/admin; fi
	"${@:2}"
}

# begin: makes the case's namespace in cluster 2 as well, and sets the trap that removes everything.
begin() {
	trap end EXIT
	on 2 kubectl delete namespace "$NS" --ignore-not-found --timeout=60s
	on 2 new_namespace "$NS"
}
end() {
	local status=$? cluster
	for cluster in 1 2; do
		on $cluster helm_end $RELEASE
		on $cluster kubectl delete clusterissuer site-ca --ignore-not-found
		on $cluster kubectl -n cert-manager delete secret site-ca --ignore-not-found
	done
	on 2 kubectl delete namespace "$NS" --timeout=60s
	rm -rf "$work"
	return $status
}

# authority NAME [PARENT]: makes a root, or an intermediate of PARENT: $work/NAME.crt and $work/NAME.key.
authority() {
	local length=critical,CA:TRUE${2:+,pathlen:0}
	printf '[req]\ndistinguished_name=dn\n[dn]\n' >"$work/empty.cnf"
	openssl req -x509 -config "$work/empty.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" \
		-addext "basicConstraints=$length" -addext keyUsage=critical,keyCertSign,cRLSign \
		${2:+-CA "$work/$2.crt" -CAkey "$work/$2.key"} -keyout "$work/$1.key" -out "$work/$1.crt" 2>/dev/null
}
# issuer NAME [CERTIFICATE...]: makes the ClusterIssuer site-ca sign with that authority. Its Secret also has the certificates above it.
issuer() {
	local name=$1 above=("${@:2}")
	{ cat "$work/$name.crt" && for name in "${above[@]}"; do cat "$work/$name.crt"; done; } >"$work/chain.crt"
	kubectl -n cert-manager create secret tls site-ca --cert="$work/chain.crt" --key="$work/$1.key" --dry-run=client -o yaml | kubectl apply -f -
	kubectl apply -f - <<-YAML
		apiVersion: cert-manager.io/v1
		kind: ClusterIssuer
		metadata: { name: site-ca }
		spec: { ca: { secretName: site-ca } }
	YAML
	kubectl wait --for=condition=ready clusterissuer/site-ca --timeout=30s
}
# trust ROOT...: makes these the content of the trust source.
trust() {
	local name
	for name; do cat "$work/$name.crt"; done >"$work/roots.crt"
	k create configmap roots --from-file="ca.crt=$work/roots.crt" --dry-run=client -o yaml | k apply -f -
}
# install [HELM-FLAG...]: installs certlet. Its own account makes the requests, as in setup.
install() {
	helm_install $RELEASE $DRIVER --set certManager.tokenRequest.enabled=false --set "trust.sources={configmap:$NS/roots/ca.crt}" "$@"
}

# peer NAME DNS-NAME [ATTRIBUTE=VALUE...]: starts a pod with a certificate for that name, which it renews every ten seconds. COMMAND is
# what the pod runs, by default an mTLS server at port 8443.
peer() {
	local name=$1 dns=$2
	shift 2
	ISSUER=site-ca certificate_pod "$name" "dns-names=$dns" 'key-usages=digital signature,server auth,client auth' \
		duration=20s renew-before=10s "$@" |
		sed -e "s|command: .*|command: [sh, -c, '${COMMAND:-exec mtls-peer server}']|" -e 's|^spec:|&\n  restartPolicy: Never|' | k apply -f -
}
# address POD: prints its address, which the pods of both clusters reach.
address() { k get pod "$1" -o 'jsonpath={.status.podIP}'; }
listens() { # POD PORT
	in_pod "$1" sh -c "netstat -ltn | grep -q :$2"
}

# asks POD ADDRESS NAME [MTLS-PEER-FLAG...]: makes one request of the pod with Go's TLS. Prints errors.
asks() {
	in_pod "$1" mtls-peer client -connect "$2" -server-name "$3" -timeout 100ms -interval 200ms "${@:4}" 2>&1
}
# openssl_asks POD ADDRESS NAME [FOLDER [ROOTS]]: the same with OpenSSL, with the files of a folder, and other trust anchors.
openssl_asks() {
	local dir=${4:-/tls}
	in_pod "$1" sh -c "printf 'GET / HTTP/1.0\r\n\r\n' | timeout 10 openssl s_client -quiet -connect $2 -servername $3 -verify_hostname $3 \
		-verify_return_error ${CHECK:-} -CAfile ${5:-$dir/ca.crt} -cert $dir/tls.crt -cert_chain $dir/tls.crt -key $dir/tls.key 2>&1 | grep -v '^depth\|^verify return:1'"
}
# refused WHAT TEXT COMMAND...: the command prints why it failed, which has the text.
refused() {
	local said
	said=$("${@:3}") || true
	echo "$1: $said"
	contains "$1" "$said" "$2"
}
