#!/usr/bin/env bash
# --source-ca-bundle decides what ca.crt of csi-driver-spiffe's volumes holds. A change reaches the files of running pods without a
# new certificate, whichever CA signs. The source is a ConfigMap or a file. One that is gone changes nothing.
# needs: certlet own-cluster
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/spiffe.sh"

spiffe_begin
account app
root_ca new-root

# certificates FILE: prints the certificates of a file of PEM, without what stands between them.
certificates() { sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/p' "$1"; }
roots() { # FILE: makes it the source's content.
	k create configmap roots --from-file="ca.crt=$1" --dry-run=client -o yaml | k replace -f -
}
trusts() { # POD FILE
	in_pod "$1" cat /tls/ca.crt >"$work/seen.crt" && [ "$(certificates "$work/seen.crt")" = "$(certificates "$2")" ]
}
kept() { for pod in one two; do in_pod $pod sha256sum /tls/tls.crt /tls/tls.key; done; }

for pod in one two; do spiffe_pod $pod app | k apply -f -; done
running one two
for pod in one two; do
	has_identity $pod app
	trusts $pod "$work/spiffe-ca.crt" || fail "ca.crt of $pod is not that of the source"
done
before=$(kept)
names=$(requests)

# The new root is added, with a comment as CA files have them.
{ echo "# This is a comment" && cat "$work/spiffe-ca.crt" "$work/new-root.crt"; } >"$work/both.crt"
roots "$work/both.crt"
for pod in one two; do wait_for 60 trusts $pod "$work/both.crt"; done
equal "certificates and keys" "$(kept)" "$before"
equal "the requests" "$(requests)" "$names"

# The source goes. Everything stays.
k delete configmap roots
fails() { k exec daemonset/$RELEASE -- certlet status | grep -q "trust source"; }
wait_for 30 fails
equal "certificates and keys" "$(kept)" "$before"
for pod in one two; do trusts $pod "$work/both.crt" || fail "ca.crt of $pod changed when the source went"; done

# The source is back, with only the new root: the old one is not trusted any more, and the certificates are still those of before.
k create configmap roots --from-file="ca.crt=$work/new-root.crt"
for pod in one two; do wait_for 60 trusts $pod "$work/new-root.crt"; done
equal "certificates and keys" "$(kept)" "$before"
equal "the requests" "$(requests)" "$names"

# A file that is mounted into the driver, as with csi-driver-spiffe's chart.
k create configmap file-roots --from-file="ca.crt=$work/both.crt"
mounted=/var/run/secrets/cert-manager-csi-driver-spiffe
spiffe_install --set trust.sources=null --set "extraArgs={--source-ca-bundle=$mounted/ca.crt}" \
	--set-json 'extraVolumes=[{"name":"root-cas","configMap":{"name":"file-roots"}}]' \
	--set-json "extraVolumeMounts=[{\"name\":\"root-cas\",\"mountPath\":\"$mounted\",\"readOnly\":true}]"
k rollout status daemonset/$RELEASE --timeout=90s
for pod in one two; do wait_for 60 trusts $pod "$work/both.crt"; done
k create configmap file-roots --from-file="ca.crt=$work/new-root.crt" --dry-run=client -o yaml | k replace -f -
# The kubelet renews a mounted ConfigMap when the pod changes, and else within a minute.
k annotate pod -l app.kubernetes.io/name=certlet,app.kubernetes.io/instance=$RELEASE e2e/roots=new
for pod in one two; do wait_for 90 trusts $pod "$work/new-root.crt"; done
equal "certificates and keys" "$(kept)" "$before"
equal "the requests" "$(requests)" "$names"
