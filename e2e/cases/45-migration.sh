#!/usr/bin/env bash
# The real csi-driver of cert-manager gives pods certificates. Then certlet replaces it as docs/migrate.md says, csi-driver replaces
# certlet, and certlet csi-driver once more. Pods keep their files, no request between them fails, and each driver unmounts what the
# other has mounted. Without the piece csi-driver the case is skipped.
# needs: certlet own-cluster helm
# wants: csi-driver
# limit: 900
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/migration.sh"

export DRIVER=csi.cert-manager.io
data=/tmp/cert-manager-csi-driver # app.driver.csiDataDir
if [ ! -e "$E2E_RUN/bin/cert-manager-csi-driver" ]; then skip "there is no csi-driver: set CERTLET_E2E_CHECKOUTS (README.md, csi-driver)"; fi
if [ -e $data ]; then fail "$data exists: another csi-driver left it"; fi

csi_driver_begins() {
	local image sets=() images=(image=cert-manager-csi-driver nodeDriverRegistrarImage=csi-node-driver-registrar livenessProbeImage=livenessprobe)
	for image in "${images[@]}"; do sets+=("${image%=*}.repository=localhost/${image#*=},${image%=*}.tag=e2e"); done
	helm install cert-manager-csi-driver "$E2E_RUN/share/csi-driver" --namespace cert-manager "${sets[@]/#/--set=}" >/dev/null
	kubectl -n cert-manager rollout status daemonset/cert-manager-csi-driver --timeout=60s
}
csi_driver_ends() { helm uninstall cert-manager-csi-driver --namespace cert-manager --wait; }
csi_driver_runs() { kubectl get csidriver $DRIVER; }
certlet_begins() { helm_install drop-in $DRIVER --values "$E2E/../charts/certlet/values-drop-in.yaml"; }
certlet_ends() { helm uninstall drop-in --namespace "$NS" --wait; }
certlet_log() { k logs daemonset/drop-in; }
ended() {
	local status=$?
	csi_driver_runs || certlet_begins || true # without a driver no pod could end
	k delete deployment server --ignore-not-found --wait=false
	helm_end drop-in
	csi_driver_ends || true
	if grep -q " $data/inmemfs " /proc/mounts; then umount $data/inmemfs; fi
	rm -rf $data
	return $status
}

volumes() { find $data/inmemfs -mindepth 1 -maxdepth 1 | wc -l; }
# volume_of POD: prints the volume's ID, from csi-driver's file.
volume_of() { basename "$(dirname "$(grep -rl "\"csi.storage.k8s.io/pod.name\":\"$1\"" $data/inmemfs/*/metadata.json)")"; }

# The certificate's contents. Both drivers must ask for the same.
contents() {
	local pod
	for pod in plain group keystore names; do x509 "$pod" /tls/tls.crt -subject -ext subjectAltName,keyUsage,extendedKeyUsage; done
	in_pod keystore sh -c 'ls -l /tls/..data/ | wc -l'
	in_pod group sh -c 'cat /tls/tls.key | head -n 1'
}

# mtls NAME COMMAND...: prints a pod's template with a certificate volume, for server and client.
mtls() {
	local name=$1
	shift
	certificate_pod "$name" "dns-names=$name.test" 'key-usages=digital signature,server auth,client auth' duration=1h |
		running_command "$@"
}

# Pods with one container each: with a group, a keystore and variables, and one whose certificate is renewed every 20 seconds.
pods() {
	certificate_pod plain common-name=plain duration=1h
	echo ---
	SPEC='securityContext: { runAsUser: 1000, supplementalGroups: [2000] }' certificate_pod group common-name=group fs-group=2000 duration=1h
	echo ---
	certificate_pod keystore common-name=keystore pkcs12-enable=true pkcs12-filename=store.p12 pkcs12-password=changeit duration=1h
	echo ---
	# shellcheck disable=SC2016 # the driver's variables
	certificate_pod names 'dns-names=${POD_NAME}.${POD_NAMESPACE}.svc' 'uri-sans=spiffe://test/ns/${POD_NAMESPACE}/sa/${SERVICE_ACCOUNT_NAME}' duration=1h
	echo ---
	certificate_pod renewing common-name=renewing duration=3m renew-before=160s
}
is_renewed() {
	local last
	last=$(serial renewing)
	renewed() { [ "$(serial renewing)" != "$last" ]; }
	wait_for 60 renewed
}

trap ended EXIT
"$E2E_CLUSTER/image" cert-manager-csi-driver:e2e "$E2E_RUN/bin/cert-manager-csi-driver" "$(command -v mount)" "$(command -v umount)"
peer_images

# csi-driver, and pods with its certificates
csi_driver_begins
mtls server mtls-peer server | start_servers
mtls client mtls-peer client -connect "$(server_address)" -server-name server.test -timeout 15m | k apply -f -
pods | k apply -f -
running client plain group keystore names renewing
equal "who made the requests" "$(k get certificaterequests -o json | jq -r '[.items[].spec.username] | unique | join(" ")')" system:serviceaccount:cert-manager:cert-manager-csi-driver
is_renewed
by_csi_driver=$(contents)

# Steps 2 and 3: csi-driver is uninstalled.
listed=$(kubectl get pods -A -o json | jq -r '.items[] | select(.spec.volumes[]?.csi?.driver == "csi.cert-manager.io") | .metadata.namespace + "/" + .metadata.name')
csi_driver_ends
# shellcheck disable=SC2046 # several names
remember client plain group keystore names renewing $(servers)
equal "the pods that the page's command lists" "$(sort <<<"$listed" | xargs)" "$(printf "$NS/%s\n" "${live[@]}" | sort | xargs)"
certificate_pod waiting common-name=waiting duration=1h | k apply -f -
unchanged "the uninstall of csi-driver"

# Step 4: certlet is installed. A restart of the kubelet shows it the other driver's volumes.
certlet_begins
running waiting
unchanged "the install of certlet"
ctl restart kubelet
unchanged "a restart of the kubelet"
for pod in "${live[@]}"; do wait_for 120 events_say "$pod" "^CertificateNotRenewed: another driver's volume"; done
equal "what certlet's log says of another driver's volumes" "$(certlet_log | grep "another driver's volume" | jq -r .pod | sort | xargs)" "$(printf '%s\n' "${live[@]}" | sort | xargs)"
sleep 25 # longer than csi-driver waits for the next renewal of `renewing`
unchanged "the time of a renewal, which nobody made"

# Step 5: the pods are restarted, but for one server's client and the pod with a group.
plain=$(volume_of plain)
k delete pod plain keystore names renewing --wait --timeout=60s
if grep "$plain" /proc/self/mountinfo; then fail "the other driver's volume is still mounted"; fi
[ -e "$data/inmemfs/$plain/data/tls.key" ] || fail "docs/migrate.md says that the files stay until somebody removes them"
restart_servers
no_request_failed "a rolling restart"
remember client group waiting
pods | k apply -f -
running plain keystore names renewing
equal "what is in the certificates" "$(contents)" "$by_csi_driver"
is_renewed
unchanged "the restart of the others"

# Step 6, on a node that still has pods with the other driver's volumes.
equal "the volumes in csi-driver's tmpfs" "$(volumes)" 8
for dir in "$data"/inmemfs/*/; do grep -q "/$(basename "$dir")/data " /proc/self/mountinfo || rm -r "$dir"; done
equal "the volumes of running pods in csi-driver's tmpfs" "$(volumes)" 2
unchanged "the removal of what ended pods had"

# Back: csi-driver renews its own volumes again, and leaves certlet's as they are.
certlet_ends
# shellcheck disable=SC2046
remember client group waiting plain keystore names $(servers)
csi_driver_begins
unchanged "the way back"
ctl restart kubelet
unchanged "a restart of the kubelet on the way back"
wait_for 60 volume_of waiting # csi-driver made one of its own, which the pod does not see
certificate_pod fresh common-name=fresh duration=1h | k apply -f -
running fresh
k delete pod waiting keystore names fresh --wait --timeout=60s
[ -z "$(k get pod waiting keystore names fresh --ignore-not-found)" ] || fail "csi-driver could not unmount certlet's volumes"

# Once more: certlet finds its own volumes again.
csi_driver_ends
certlet_begins
# shellcheck disable=SC2046
remember client group plain $(servers)
is_renewed
unchanged "the second install of certlet"
contains "certlet status" "$(k exec daemonset/drop-in -- certlet status)" "CN=plain"
no_request_failed "all of this"
echo "note: $(requests_answered)"

# Step 6, when no pod of csi-driver is left.
k delete pod client group --wait --timeout=60s
umount $data/inmemfs
rm -r $data
equal "mounts of csi-driver" "$(grep -c '^tmpfs .*kubernetes.io~csi' /proc/mounts || true)" 0
