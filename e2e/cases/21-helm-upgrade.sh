#!/usr/bin/env bash
# Upgrade and rollback under live pods: no file lost, no mount piled up, and renewal goes on. The chart to upgrade from is
# PREVIOUS_CHART, a folder; until there is a release, it is this chart with other values.
# needs: certlet helm own-cluster
# limit: 900
. "$(dirname "$0")/../lib.sh"

export DRIVER=upgrade.csi.certlet.io
trap 'helm_end upgraded' EXIT
flags=(--set "requesters.namespaces={$NS}")
if [ -n "${PREVIOUS_CHART:-}" ]; then
	helm install upgraded "$PREVIOUS_CHART" --namespace "$NS" --wait --set-string "image.repository=${CERTLET_IMAGE%:*},image.tag=${CERTLET_IMAGE##*:}" \
		--set "fullnameOverride=upgraded,driverName=$DRIVER" "${flags[@]}"
else
	helm_install upgraded $DRIVER "${flags[@]}" --set log.format=text,store.size=16Mi
fi
for n in 1 2; do certificate_pod app-$n common-name=app-$n duration=1h | k apply -f -; done
certificate_pod renewing common-name=renewing duration=5m renew-before=270s | k apply -f -
running app-1 app-2 renewing
files() { for n in 1 2; do in_pod app-$n sha256sum /tls/tls.crt /tls/tls.key /tls/ca.crt; done; }
mounts() { grep -c 'kubernetes.io~csi' /proc/mounts; }
before=$(files)
mounted=$(mounts)
unchanged() {
	equal "the files after $1" "$(files)" "$before"
	equal "the mounts after $1" "$(mounts)" "$mounted"
	local last
	last=$(serial renewing)
	renewed() { [ "$(serial renewing)" != "$last" ]; }
	# A driver that has just started has the pods' tokens again with the kubelet's next call.
	wait_for 150 renewed
	certificate_pod after common-name=after | k apply -f -
	running after
	k delete pod after --wait >/dev/null
	wait_for 20 has_requests 3
}

helm_install upgraded $DRIVER "${flags[@]}" --set log.format=json,store.size=32Mi
unchanged "the upgrade"

# From the pods' own requests to the driver's and back: what is mounted does not depend on it.
helm_install upgraded $DRIVER "${flags[@]}" --set certManager.tokenRequest.enabled=false
unchanged "the change to the driver's own requests"

helm rollback upgraded 1 --namespace "$NS" --wait --timeout 90s
unchanged "the rollback"

k delete pod app-1 app-2 renewing --wait
wait_for 20 has_requests 0
