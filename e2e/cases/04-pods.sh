#!/usr/bin/env bash
# A non-root pod with an fsGroup, two containers and two volumes. When a container restarts, no new certificate is issued.
# needs: certlet
. "$(dirname "$0")/../lib.sh"

k apply -f - <<YAML
apiVersion: v1
kind: Pod
metadata: { name: app }
spec:
  terminationGracePeriodSeconds: 1
  securityContext: { runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 3000 }
  containers:
    - name: one
      image: $POD_IMAGE
      command: [sleep, infinity]
      volumeMounts: [{ name: first, mountPath: /first }, { name: second, mountPath: /second }]
    - name: two
      image: $POD_IMAGE
      command: [sh, -c, "trap 'exit 1' TERM; while true; do sleep 1; done"]
      volumeMounts: [{ name: first, mountPath: /first }]
  volumes:
    - name: first
      csi:
        driver: csi.certlet.io
        readOnly: true
        volumeAttributes: { csi.certlet.io/issuer-name: e2e-ca, csi.certlet.io/issuer-kind: ClusterIssuer, csi.certlet.io/common-name: first }
    - name: second
      csi:
        driver: csi.certlet.io
        readOnly: true
        volumeAttributes: { csi.certlet.io/issuer-name: e2e-ca, csi.certlet.io/issuer-kind: ClusterIssuer, csi.certlet.io/common-name: second }
YAML
running app
equal "who the pod is" "$(k exec app -c one -- id -u)" 1000
k exec app -c one -- openssl pkey -in /first/tls.key -noout
equal "the key's group and mode" "$(k exec app -c one -- stat -L -c %g:%a /first/tls.key)" 3000:440
contains "the first volume" "$(k exec app -c one -- openssl x509 -in /first/tls.crt -noout -subject)" first
contains "the second volume" "$(k exec app -c one -- openssl x509 -in /second/tls.crt -noout -subject)" second
before=$(k exec app -c one -- sha256sum /first/tls.crt /first/tls.key)
equal "what both containers see" "$(k exec app -c two -- sha256sum /first/tls.crt /first/tls.key)" "$before"
equal "the number of requests" "$(request_count)" 2
names=$(requests)

k exec app -c two -- kill 1
wait_for 30 sh -c "kubectl -n $NS get pod app -o json | jq -e '.status.containerStatuses[] | select(.name == \"two\").restartCount > 0'"
running app
equal "what is there after the restart" "$(k exec app -c two -- sha256sum /first/tls.crt /first/tls.key)" "$before"
equal "the requests after the restart" "$(requests)" "$names"
