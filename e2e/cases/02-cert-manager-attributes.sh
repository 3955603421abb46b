#!/usr/bin/env bash
# Under the name of cert-manager's csi-driver certlet accepts every attribute of that driver, with its defaults.
# needs: certlet
# limit: 120
. "$(dirname "$0")/../lib.sh"
kubectl get csidriver csi.cert-manager.io >/dev/null 2>&1 && skip "csi.cert-manager.io is installed already"
trap 'helm_end attributes' EXIT
helm_install attributes csi.cert-manager.io --values "$E2E/../charts/certlet/values-drop-in.yaml"

export DRIVER=csi.cert-manager.io
certificate_pod defaults common-name=defaults | k apply -f -
certificate_pod all issuer-group=cert-manager.io 'common-name=${POD_NAME}' 'dns-names=${POD_NAME}.test,b.test' \
	'uri-sans=spiffe://test/${POD_UID}' ip-sans=10.1.2.3,fd00::1 duration=2h is-ca=true \
	'key-usages=digital signature,cert sign,server auth' key-algorithm=ECDSA key-size=384 key-encoding=PKCS8 certificate-file=my.crt \
	privatekey-file=my.key ca-file=my-ca.crt fs-group=2000 renew-before=30m reuse-private-key=true \
	organizations=Org organizationalunits=Unit countries=NL provinces=NH localities=Amsterdam \
	'streetaddresses=Dam 1' 'postalcodes=1012' serialnumber=42 \
	pkcs12-enable=true pkcs12-filename=my.p12 pkcs12-password=secret example.com/team=payments | k apply -f -
certificate_pod literal 'literal-subject=CN=literal,OU=b,O=a' dns-names=literal.test | k apply -f -
# What csi-driver serves though it may not work.
long_name=$(printf 'n%.0s' {1..70})
certificate_pod doubtful "common-name=$long_name" 'dns-names=doubtful.test,' 'organizations=Acme, Foo' \
	'key-usages=signing, digital signature,server auth,server auth' no-such-attribute=x | k apply -f -
running defaults all literal doubtful

contains "the default key" "$(x509 defaults /tls/tls.crt -text)" "Public-Key: (2048 bit)"
contains "the default encoding" "$(in_pod defaults head -n 1 /tls/tls.key)" "BEGIN RSA PRIVATE KEY"
in_pod defaults openssl x509 -in /tls/tls.crt -noout -checkend $((2159 * 3600))

equal "the files" "$(in_pod all ls /tls | sort | xargs)" "my-ca.crt my.crt my.key my.p12"
text=$(x509 all /tls/my.crt -text)
uid=$(k get pod all -o 'jsonpath={.metadata.uid}')
for part in CA:TRUE DNS:all.test DNS:b.test "URI:spiffe://test/$uid" "IP Address:10.1.2.3" "IP Address:FD00:0:0:0:0:0:0:1" \
	"Certificate Sign" "TLS Web Server Authentication" "NIST CURVE: P-384"; do
	contains "the certificate" "$text" "$part"
done
subject=$(x509 all /tls/my.crt -subject -nameopt RFC2253)
for part in CN=all O=Org OU=Unit C=NL ST=NH L=Amsterdam "street=Dam 1" postalCode=1012 serialNumber=42; do
	contains "the subject" "${subject,,}" "${part,,}"
done
contains "the key's encoding" "$(in_pod all head -n 1 /tls/my.key)" "BEGIN PRIVATE KEY"
equal "the key's group" "$(in_pod all stat -L -c %g:%a /tls/my.key)" 2000:440
equal "the key's mode without a group" "$(in_pod defaults stat -L -c %g:%a /tls/tls.key)" 0:440
store=$(mktemp)
in_pod all base64 /tls/my.p12 | base64 -d >"$store"
openssl pkcs12 -legacy -in "$store" -passin pass:secret -noout
if command -v keytool >/dev/null; then
	contains "what keytool lists" "$(keytool -list -v -keystore "$store" -storepass secret)" "Alias name: 1"
fi
rm "$store"

subject=$(x509 doubtful /tls/tls.crt -subject -nameopt RFC2253)
contains "the long common name" "$subject" "CN=$long_name"
# A set, sorted by its encoding. This form shows it from its end.
contains "the organizations" "$subject" 'O=Acme+O=\ Foo'
equal "the usages, word for word" \
	"$(k get certificaterequests -o json | jq -r '.items[] | select(.metadata.name | startswith("doubtful-")) | .spec.usages | join(",")')" \
	"signing,digital signature,server auth,server auth"
wait_for 60 events_say doubtful "AttributeDoubtful: .*no-such-attribute"
contains "the status" "$(k exec daemonset/attributes -- certlet status --driver-name csi.cert-manager.io --json)" no-such-attribute
contains "the literal subject" "$(x509 literal /tls/tls.crt -subject -nameopt RFC2253)" "CN=literal,OU=b,O=a"

equal "the number of requests" "$(request_count)" 4
equal "the annotation that was passed on" "$(k get certificaterequests -o json | jq -r '.items[].metadata.annotations["example.com/team"] // empty')" payments
