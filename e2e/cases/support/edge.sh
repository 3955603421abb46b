# What the cases of an edge share: a server behind it, and clients that make requests through it. A case sources this file after lib.sh.
# shellcheck shell=bash

# behind: starts the server orders. It takes 50 ms for each request, so that some are always under way, and answers with the serial of
# the client that the edge tells it.
behind() {
	k create configmap orders --from-literal=serial='#!/bin/sh
sleep 0.05
printf "Content-Type: text/plain\r\n\r\n%s" "$HTTP_X_CLIENT_SERIAL"'
	k apply -f - <<-YAML
		apiVersion: v1
		kind: Pod
		metadata: { name: orders, labels: { app: orders } }
		spec:
		  terminationGracePeriodSeconds: 1
		  containers: [{ name: main, image: $POD_IMAGE, imagePullPolicy: IfNotPresent, command: [httpd, -f, -p, "8080", -h, /www], volumeMounts: [{ name: www, mountPath: /www/cgi-bin }] }]
		  volumes: [{ name: www, configMap: { name: orders, defaultMode: 0755 } }]
	YAML
	running orders
	orders=$(k get pod orders -o 'jsonpath={.status.podIP}')
}

# edge EXAMPLE IMAGE [SED-SCRIPT]: starts the edge of that file in examples/edge, with another image and the case's issuer. Its
# certificate is renewed every ten seconds.
edge() {
	sed -e "s|image: .*|image: localhost/$2|" -e "s|namespace: shop|namespace: $NS|" -e "s|orders.shop.svc.cluster.local|$orders|" \
		-e "s|issuer-name: .*|issuer-name: e2e-ca|" -e 's|^\( *\)csi.certlet.io/dns-names: .*|&\n\1csi.certlet.io/duration: 20s\n\1csi.certlet.io/renew-before: 10s|' \
		"${@:3}" "$E2E/../examples/edge/$1.yaml" | k apply -f -
}

# clients NAME...: starts pods that have a certificate for NAME.clients.example.org, which they renew every ten seconds.
clients() {
	local name
	for name; do
		certificate_pod "$name" "dns-names=$name.clients.example.org" 'key-usages=digital signature,client auth' duration=20s renew-before=10s |
			k apply -f -
	done
	running "$@"
}
# requests_through EDGE PORT CLIENT: makes requests through the edge until it and the client have rotated four times. Each request has a
# connection of its own. Prints the counters.
requests_through() {
	in_pod "$3" mtls-peer client -connect "$(edge_address "$1"):$2/cgi-bin/serial" -server-name edge.example.org -parallel 8 -interval 5ms -until-serials 5 -timeout 100s
}
edge_address() { k get pods -l "app=$1" -o 'jsonpath={.items[0].status.podIP}'; }
# none_failed NAME COUNTERS-FILE
none_failed() {
	echo "note: $1: $(grep '^{' "$2" | tail -n 1)"
	equal "failed requests of $1" "$(grep '^{' "$2" | tail -n 1 | jq .failed)" 0
}
