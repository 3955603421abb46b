#!/usr/bin/env bash
# The real csi-driver-spiffe, driver and approver, gives pods their SPIFFE IDs. Beside it certlet has volumes under its own name, whose
# requests the other approver decides. Then certlet replaces csi-driver-spiffe as docs/migrate.md says, csi-driver-spiffe replaces
# certlet, and certlet csi-driver-spiffe once more. Pods keep their files, no request between them fails, and each driver unmounts what
# the other has mounted. Without the piece csi-driver-spiffe the case is skipped.
# needs: certlet own-cluster helm
# wants: csi-driver-spiffe
# limit: 900
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/migration.sh"
. "$(dirname "$0")/support/spiffe.sh"

data=/tmp/cert-manager-csi-driver # app.driver.csiDataDir
peer=cert-manager-csi-driver-spiffe
if [ ! -e "$E2E_RUN/bin/$peer" ]; then skip "there is no csi-driver-spiffe: set CERTLET_E2E_CHECKOUTS (README.md, csi-driver)"; fi
if [ -e $data ]; then fail "$data exists: another csi-driver left it"; fi

peer_begins() {
	helm install $peer "$E2E_RUN/share/csi-driver-spiffe" --namespace cert-manager --values - <<-YAML >/dev/null
		driverImage: { repository: localhost/$peer, tag: e2e }
		approverImage: { repository: localhost/$peer-approver, tag: e2e }
		app:
		  trustDomain: foo.bar
		  issuer: { name: spiffe-ca }
		  approver: { signerName: clusterissuers.cert-manager.io/spiffe-ca }
		  driver:
		    nodeDriverRegistrarImage: { repository: localhost/csi-node-driver-registrar, tag: e2e }
		    livenessProbeImage: { repository: localhost/livenessprobe, tag: e2e }
		    sourceCABundle: /roots/ca.crt
		    volumes: [{ name: roots, configMap: { name: roots } }]
		    volumeMounts: [{ name: roots, mountPath: /roots }]
	YAML
	# The published image names a user, and the one made here does not.
	kubectl -n cert-manager patch deployment $peer-approver --patch '{"spec": {"template": {"spec": {"securityContext": {"runAsUser": 65532}}}}}'
	kubectl -n cert-manager rollout status daemonset/$peer-driver --timeout=60s
	kubectl -n cert-manager rollout status deployment/$peer-approver --timeout=60s
}
peer_ends() { helm uninstall $peer --namespace cert-manager --wait; }
peer_runs() { kubectl -n cert-manager get daemonset $peer-driver; }
certlet_ends() { helm uninstall $RELEASE --namespace "$NS" --wait; }
ended() {
	local status=$?
	peer_runs || spiffe_install || true # without a driver no pod could end
	k delete deployment server --ignore-not-found --wait=false
	k delete pods --selector '!app.kubernetes.io/instance' --timeout=60s || true
	helm uninstall beside --namespace "$NS" --wait || true
	peer_ends || true
	kubectl -n cert-manager delete configmap roots --ignore-not-found
	rm -rf $data
	spiffe_end || true
	return $status
}

bank() { spiffe_pod "$1" bank; }
pods() {
	bank plain
	echo ---
	SPEC='securityContext: { runAsUser: 1000, supplementalGroups: [2000] }' spiffe_pod group bank fs-group=2000
}

trap ended EXIT
"$E2E_CLUSTER/image" $peer:e2e "$E2E_RUN/bin/$peer" "$(command -v mount)" "$(command -v umount)"
"$E2E_CLUSTER/image" $peer-approver:e2e "$E2E_RUN/bin/$peer-approver"
peer_images
ca_issuer spiffe-ca
for namespace in "$NS" cert-manager; do kubectl -n "$namespace" create configmap roots --from-file="ca.crt=$work/spiffe-ca.crt"; done
ctl restart cert-manager+--approve=false
account shop bank

# csi-driver-spiffe, and pods with its certificates
peer_begins
spiffe_pod server shop | running_command mtls-peer server | start_servers
bank client | running_command mtls-peer client -connect "$(server_address)" -spiffe-id "$(spiffe_id shop)" -timeout 15m | k apply -f -
pods | k apply -f -
running client plain group
for pod in client plain group; do has_identity $pod bank; done
decided_by=$(k get certificaterequests -o json | jq -r '[.items[].status.conditions[] | select(.type == "Approved") | .reason] | unique | join(" ")')

# B: certlet beside it. The other approver decides certlet's requests too.
helm_install beside beside.test.certlet.io --set spiffe.trustDomain=foo.bar,certManager.defaultIssuer.name=spiffe-ca \
	--set certManager.defaultIssuer.kind=ClusterIssuer,certManager.tokenRequest.enabled=true \
	--set "podOwner.exemptServiceAccounts={system:serviceaccount:certlet:certlet}"
bank beside | sed -e 's|driver: .*|driver: beside.test.certlet.io|' -e '$a\        volumeAttributes: { csi.certlet.io/spiffe: "true" }' | k apply -f -
running beside
has_identity beside bank
equal "who approved the request of certlet beside csi-driver-spiffe" "$(request_of beside '.status.conditions[] | select(.type == "Approved") | .reason')" "$decided_by"
bank fresh | k apply -f - # whose request must not be refused by certlet's policies
running fresh
k delete pod beside fresh --wait --timeout=60s
helm uninstall beside --namespace "$NS" --wait

# A, steps 2 and 3: csi-driver-spiffe is uninstalled.
listed=$(kubectl get pods -A -o json | jq -r '.items[] | select(.spec.volumes[]?.csi?.driver == "spiffe.csi.cert-manager.io") | .metadata.namespace + "/" + .metadata.name')
# shellcheck disable=SC2046 # several names
remember client plain group $(servers)
equal "the pods that the page's command lists" "$(sort <<<"$listed" | xargs)" "$(printf "$NS/%s\n" "${live[@]}" | sort | xargs)"
peer_ends
bank waiting | k apply -f -
unchanged "the uninstall of csi-driver-spiffe"

# Steps 4 and 5: certlet is installed. A restart of the kubelet shows it the other driver's volumes.
spiffe_install
running waiting
has_identity waiting bank
contains "who approved it" "$(request_of waiting '.status.conditions[].reason')" approver.certlet.io
contains "certlet status" "$(k exec daemonset/$RELEASE -- certlet status)" "$(spiffe_id bank)"
unchanged "the install of certlet"
ctl restart kubelet
unchanged "a restart of the kubelet"
for pod in "${live[@]}"; do wait_for 120 events_say "$pod" "^CertificateNotRenewed: another driver's volume"; done

# Step 6: the pods are restarted.
k delete pod plain group --wait --timeout=60s
restart_servers
no_request_failed "a rolling restart"
remember client waiting
pods | k apply -f -
running plain group
for pod in plain group; do has_identity $pod bank; done
unchanged "the restart of the others"

# Back: csi-driver-spiffe leaves certlet's volumes as they are.
certlet_ends
# shellcheck disable=SC2046
remember client waiting plain group $(servers)
peer_begins
unchanged "the way back"
ctl restart kubelet
unchanged "a restart of the kubelet on the way back"
bank fresh | k apply -f -
running fresh
has_identity fresh bank
k delete pod waiting group fresh --wait --timeout=60s
[ -z "$(k get pod waiting group fresh --ignore-not-found)" ] || fail "csi-driver-spiffe could not unmount certlet's volumes"

# Once more: certlet finds its own volumes again.
peer_ends
spiffe_install
# shellcheck disable=SC2046
remember client plain $(servers)
wait_for 30 sh -c "kubectl -n $NS exec daemonset/$RELEASE -- certlet status | grep -q plain"
unchanged "the second install of certlet"
no_request_failed "all of this"
echo "note: $(requests_answered), decided by $decided_by"

# Step 7, when no pod of csi-driver-spiffe is left.
k delete pod client --wait --timeout=60s
if grep " $data" /proc/mounts; then fail "docs/migrate.md says that nothing is mounted there"; fi
equal "what is left of csi-driver-spiffe" "$(find $data -mindepth 1)" "$data/inmemfs"
rm -r $data
equal "mounts of csi-driver-spiffe" "$(grep -c '^tmpfs .*kubernetes.io~csi' /proc/mounts || true)" 0
