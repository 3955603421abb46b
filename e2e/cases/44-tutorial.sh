#!/usr/bin/env bash
# docs/tutorial.md as it is written: each block `sh` of the page is run, and what it prints is compared with the block `text` that
# follows it, where there is one. The page installs certlet by its recipe, so the cases' own release is removed
# before and set up again after it.
# What the page takes from elsewhere is replaced: images from registries by images of this machine's programs under the same names,
# and the cluster's DNS by a line in the pods' /etc/hosts.
# needs: certlet own-cluster nginx
# limit: 500
. "$(dirname "$0")/../lib.sh"

work=$(mktemp -d)
cleanup() {
	kubectl delete namespace shop --ignore-not-found --timeout=60s
	helm uninstall certlet --namespace certlet --ignore-not-found --wait
	kubectl delete namespace certlet --ignore-not-found --timeout=60s
	kubectl delete clusterissuer/tutorial-ca --ignore-not-found
	kubectl -n cert-manager delete secret tutorial-ca --ignore-not-found
	cd / && rm -rf "$work"
	"$E2E/setup"
}
trap cleanup EXIT

"$E2E_CLUSTER/image" nginx-curl:1 "$E2E_RUN/bin/nginx" "$(command -v busybox)" "$(command -v curl)"
ctr -n k8s.io images tag --force localhost/nginx-curl:1 docker.io/library/nginx:1.28
ctr -n k8s.io images tag --force "$CERTLET_IMAGE" localhost/certlet:dev
kubectl -n certlet delete pods --selector '!app.kubernetes.io/instance'
helm uninstall certlet --namespace certlet --wait
kubectl delete namespace certlet --timeout=60s

# Writes the names of the Service web into the hosts file that the kubelet has made for each pod of the namespace shop.
name_service() {
	local address pod hosts
	address=$(kubectl -n shop get service web -o 'jsonpath={.spec.clusterIP}' 2>/dev/null) || return 0
	for pod in $(kubectl -n shop get pods -o 'jsonpath={.items[*].metadata.uid}'); do
		hosts=/var/lib/kubelet/pods/$pod/etc-hosts
		if [ -f "$hosts" ] && ! grep -q web.shop.svc "$hosts"; then echo "$address web.shop.svc web.shop.svc.cluster.local" >>"$hosts"; fi
	done
}

# Block N of the page becomes N.sh, and what it should print N.text.
awk -v work="$work" '
	/^```/ && kind { kind = ""; next }
	/^```sh$/ { kind = "sh"; file = sprintf("%s/%02d.sh", work, ++n); printf "" >file; next }
	/^```text$/ { kind = "text"; file = sprintf("%s/%02d.text", work, n); next }
	/^```/ { print "a block that is neither sh nor text: " $0; exit 1 }
	kind { print >file }
' "$E2E/../docs/tutorial.md"

# matches ACTUAL-FILE EXPECTED-FILE: `…` stands for any text, several spaces for any number of them, and a last line `…` for more lines.
matches() {
	local expected lines=1
	while IFS= read -r expected; do
		if [ "$expected" = … ]; then return 0; fi
		expected=$(sed 's/[][\.*^$]/\\&/g; s/…/.*/g; s/   */  */g' <<<"$expected")
		sed -n "${lines}p" "$1" | grep -qx -- "$expected" || return 1
		lines=$((lines + 1))
	done <"$2"
	[ "$(wc -l <"$1")" = $((lines - 1)) ]
}

# The page's working directory is a checkout.
mkdir "$work/checkout"
ln -s "$E2E/../charts" "$work/checkout/charts"
cd "$work/checkout"
for block in "$work"/*.sh; do
	name_service
	echo "--- $(basename "$block"): $(head -n 1 "$block")"
	out=${block%.sh}.out
	bash -euo pipefail "$block" >"$out" 2>&1 || { cat "$out" && fail "the page's block $(basename "$block") failed"; }
	sed -i 's/\r$//' "$out" # HTTP ends its lines so
	cat "$out"
	if [ -f "${block%.sh}.text" ]; then
		matches "$out" "${block%.sh}.text" || fail "block $(basename "$block") should print: $(cat "${block%.sh}.text")"
	fi
done
equal "how many serials nginx has seen of the client" "$(grep -oh 'the serial [0-9A-F]*' "$work"/*.out | sort -u | wc -l)" 2
