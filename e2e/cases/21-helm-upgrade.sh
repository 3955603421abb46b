#!/usr/bin/env bash
# Upgrade and rollback while pods run: no file is lost, the number of mounts does not grow, and renewals continue. PREVIOUS_CHART is
# the folder of the chart to upgrade from. Without it, as long as there is no release, it is this chart with other values.
# needs: certlet own-cluster
# limit: 900
. "$(dirname "$0")/../lib.sh"

export DRIVER=upgrade.csi.certlet.io
trap 'helm_end upgraded' EXIT
flags=(--set "requesters.namespaces={$NS}")
if [ -n "${PREVIOUS_CHART:-}" ]; then
	helm install upgraded "$PREVIOUS_CHART" --namespace "$NS" --set-string "image.repository=${CERTLET_IMAGE%:*},image.tag=${CERTLET_IMAGE##*:}" \
		--set "fullnameOverride=upgraded,driverName=$DRIVER" "${flags[@]}"
else
	helm_install upgraded $DRIVER "${flags[@]}" --set log.format=text,store.size=16Mi
fi
live_pods duration=5m renew-before=270s
# A driver that has just started gets the pods' tokens again with the kubelet's next call.
unchanged() { still_live "$1" 150; }

helm_install upgraded $DRIVER "${flags[@]}" --set log.format=json,store.size=32Mi
unchanged "the upgrade"

# Changes from the pods' own requests to the driver's, and back. Mounted volumes do not depend on this.
helm_install upgraded $DRIVER "${flags[@]}" --set certManager.tokenRequest.enabled=false
unchanged "the change to the driver's own requests"

helm rollback upgraded 1 --namespace "$NS"
k rollout status daemonset/upgraded --timeout=90s
unchanged "the rollback"

k delete pod app-1 app-2 app-3 renewing --wait
wait_for 20 has_requests 0
