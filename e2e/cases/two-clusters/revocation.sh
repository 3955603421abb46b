#!/usr/bin/env bash
# One root for two clusters, an intermediate CA in each, and revocation lists of all three CAs. A server in cluster 2 refuses a client of
# cluster 1 whose certificate is revoked, and goes on serving another one. A client refuses a revoked server. docs/trust.md quotes the
# clients' errors.
# Lists of the other cluster's intermediate are used because that is in the trust source, too.
# needs: certlet own-cluster second-cluster
. "$(dirname "$0")/../../lib.sh"
. "$(dirname "$0")/../support/two-clusters.sh"

# list AUTHORITY SERIAL...: makes the authority's list of revoked certificates, $work/AUTHORITY.crl.
list() {
	local name=$1 serial
	shift
	for serial; do printf 'R\t491231235959Z\t260101000000Z\t%s\tunknown\t/CN=revoked\n' "$serial"; done >"$work/$name.index"
	[ -e "$work/$name.number" ] || echo 01 >"$work/$name.number"
	cat >"$work/$name.cnf" <<-CNF
		[ca]
		default_ca = this
		[this]
		database = $work/$name.index
		crlnumber = $work/$name.number
		default_md = sha256
		default_crl_days = 1
		crl_extensions = extensions
		[extensions]
		authorityKeyIdentifier = keyid
	CNF
	openssl ca -gencrl -config "$work/$name.cnf" -cert "$work/$name.crt" -keyfile "$work/$name.key" -out "$work/$name.crl" 2>/dev/null
}
# publish: makes the lists the content of the sources in both clusters, as a job that reads the CAs would.
publish() {
	local cluster
	cat "$work"/{root,site-1,site-2}.crl >"$work/all.crl"
	for cluster in 1 2; do
		on $cluster k create configmap lists --from-file="ca.crl=$work/all.crl" --dry-run=client -o yaml | on $cluster k apply -f -
	done
}
# has_list POD FILE: whether the pod has exactly these lists, in whatever order.
has_list() {
	[ "$(in_pod "$1" cat /tls/ca.crl | grep -v -- ----- | sort)" = "$(grep -v -- ----- "$2" | sort)" ]
}
serial_of() { x509 "$1" /tls/tls.crt -serial | cut -d= -f2; } # POD

begin
authority root
for cluster in 1 2; do authority site-$cluster root; done
for name in root site-1 site-2; do list $name; done
publish
for cluster in 1 2; do
	on $cluster trust root site-1 site-2
	on $cluster issuer site-$cluster
	on $cluster install --set "trust.crls={configmap:$NS/lists/ca.crl}"
done
for name in client victim; do COMMAND="sleep infinity" on 1 peer $name $name.site-1.test crl-file=ca.crl duration=1h renew-before=30m; done
COMMAND="sleep infinity" on 2 peer server server.site-2.test crl-file=ca.crl duration=1h renew-before=30m
on 1 running client victim
on 2 running server
# OpenSSL's server reads its files when it starts. It is started again after each connection.
on 2 in_pod server sh -c 'cat >/tmp/serve <<"END"
while true; do
	cat /tls/ca.crt /tls/ca.crl >/tmp/ca.pem
	openssl s_server -accept 8443 -naccept 1 -www -cert /tls/tls.crt -cert_chain /tls/tls.crt -key /tls/tls.key -CAfile /tmp/ca.pem -crl_check_all -Verify 3 -verify_return_error
done
END
setsid sh /tmp/serve </dev/null >/tmp/log 2>&1 &'
on 2 wait_for 10 listens server 8443
server=$(on 2 address server):8443
name=server.site-2.test

ask() { on 1 asks "$1" "$server" $name; } # POD
checks_lists() { # makes OpenSSL's client check lists
	on 1 in_pod client sh -c 'mkdir -p /tmp/checked && cat /tls/ca.crt /tls/ca.crl >/tmp/checked/ca.pem'
	CHECK=-crl_check_all on 1 openssl_asks client "$server" $name /tls /tmp/checked/ca.pem
}
wait_for 10 ask client
wait_for 10 ask victim
contains "OpenSSL's client, before" "$(checks_lists)" "200 ok"

list site-1 "$(on 1 serial_of victim)"
publish
on 2 wait_for 30 has_list server "$work/all.crl"
ask client || true # the server that waits for a connection has the old list
sleep 0.5
refused "Go, a revoked client" "remote error: tls: revoked certificate" ask victim
sleep 0.5
refused "OpenSSL, a revoked client" "alert certificate revoked" on 1 openssl_asks victim "$server" $name
wait_for 10 ask client

list site-2 "$(on 2 serial_of server)"
publish
on 1 wait_for 30 has_list client "$work/all.crl"
refused "OpenSSL, a revoked server" "verify error:num=23:certificate revoked" checks_lists
# Go's library checks no lists.
wait_for 10 ask client
