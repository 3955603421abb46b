#!/usr/bin/env bash
# Pods get keys of each algorithm and encoding, and a PKCS#12 keystore that Java opens.
# needs: certlet
. "$(dirname "$0")/../lib.sh"

certificate_pod rsa-pkcs1 common-name=a key-algorithm=RSA key-size=3072 key-encoding=PKCS1 | k apply -f -
certificate_pod rsa-pkcs8 common-name=a key-algorithm=rsa key-size=2048 key-encoding=PKCS8 | k apply -f -
certificate_pod p384 common-name=a key-algorithm=ECDSA key-size=384 combined-file=both.pem | k apply -f -
certificate_pod ed25519 common-name=a key-algorithm=Ed25519 pkcs12-enable=true pkcs12-password=changeit | k apply -f -
certificate_pod keystore common-name=keystore pkcs12-enable=true pkcs12-password=changeit | k apply -f -
running rsa-pkcs1 rsa-pkcs8 p384 ed25519 keystore

expect() { # POD FIRST-LINE-OF-KEY KIND
	contains "the key file of $1" "$(in_pod "$1" head -n 1 /tls/tls.key)" "$2"
	contains "the key of $1" "$(x509 "$1" /tls/tls.crt -text)" "$3"
	equal "the public half of $1" "$(in_pod "$1" openssl pkey -in /tls/tls.key -pubout)" "$(x509 "$1" /tls/tls.crt -pubkey)"
	in_pod "$1" openssl verify -CAfile /tls/ca.crt /tls/tls.crt
}
expect rsa-pkcs1 "BEGIN RSA PRIVATE KEY" "Public-Key: (3072 bit)"
expect rsa-pkcs8 "BEGIN PRIVATE KEY" "Public-Key: (2048 bit)"
expect p384 "BEGIN PRIVATE KEY" "NIST CURVE: P-384"
expect ed25519 "BEGIN PRIVATE KEY" ED25519
equal "the combined file" "$(in_pod p384 cat /tls/both.pem)" "$(in_pod p384 cat /tls/tls.key /tls/tls.crt)"

in_pod keystore openssl pkcs12 -in /tls/keystore.p12 -passin pass:changeit -noout
if command -v keytool >/dev/null; then
	store=$(mktemp)
	trap 'rm -f "$store"' EXIT
	in_pod keystore base64 /tls/keystore.p12 | base64 -d >"$store"
	contains "what keytool lists" "$(keytool -list -keystore "$store" -storepass changeit)" PrivateKeyEntry
else
	echo "note: keytool is not installed, so only openssl has opened the keystore"
fi
