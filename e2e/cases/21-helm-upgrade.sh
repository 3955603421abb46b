#!/usr/bin/env bash
# Upgrade and rollback under live pods: no file lost, no mount piled up, and renewal goes on. The chart to upgrade from is
# PREVIOUS_CHART, a folder; until there is a release, it is this chart with other values.
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
# A driver that has just started has the pods' tokens again with the kubelet's next call.
unchanged() { still_live "$1" 150; }

helm_install upgraded $DRIVER "${flags[@]}" --set log.format=json,store.size=32Mi
unchanged "the upgrade"

# From the pods' own requests to the driver's and back: what is mounted does not depend on it.
helm_install upgraded $DRIVER "${flags[@]}" --set certManager.tokenRequest.enabled=false
unchanged "the change to the driver's own requests"

helm rollback upgraded 1 --namespace "$NS"
k rollout status daemonset/upgraded --timeout=90s
unchanged "the rollback"

k delete pod app-1 app-2 app-3 renewing --wait
wait_for 20 has_requests 0
