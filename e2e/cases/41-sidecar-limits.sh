#!/usr/bin/env bash
# What `certlet sidecar` withstands, and what it needs:
# - kill -9 under an open stream of the Workload API: clients connect again, nothing is asked for anew, and no request fails
# - a memory limit of 32 MiB; less than 8 MiB of anonymous memory with files, a socket and clients
# - a shared directory on a disk is refused, and so is one with somebody else's files
# needs: certlet own-cluster spiffe-peer
# limit: 400
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/support/sidecar.sh"

sidecar_begin
"$E2E_CLUSTER/image" spiffe-pod:1 "$(command -v busybox)" "$(command -v openssl)" "$E2E_RUN/bin/spiffe-peer"

# Certificates of 80 seconds, renewed after 40: long enough to kill and come back between two renewals.
export IMAGE=localhost/spiffe-pod:1
attributes=(spiffe=true socket-file=socket duration=80s renew-before=40s)
id=spiffe://example.org/ns/$NS/sa/app
COMMAND="[spiffe-peer, server, -socket, 'unix:///tls/socket', -peer, '$id']" sidecar_pod server "${attributes[@]}" | k apply -f -
running server
listens() { k exec server -c main -- sh -c "netstat -ltn | grep -q :8443"; }
wait_for 20 listens
COMMAND="[spiffe-peer, client, -socket, 'unix:///tls/socket', -peer, '$id', -connect, '$(k get pod server -o 'jsonpath={.status.podIP}'):8443', -until-serials, '3', -timeout, 240s]" \
	POD='restartPolicy: Never' sidecar_pod client "${attributes[@]}" | k apply -f -
running client

kill_sidecar() {
	local container
	container=$(k get pod "$1" -o json | jq -r '.status.initContainerStatuses[] | select(.name == "certlet") | .containerID | sub("containerd://"; "")')
	ctr -n k8s.io task kill -s SIGKILL "$container"
}
for pod in server client; do
	serial=$(sidecar_serial $pod)
	count=$(request_of $pod .metadata.name | wc -l)
	restarts=$(sidecar_restarts $pod)
	kill_sidecar $pod
	back() { [ "$(sidecar_restarts "$pod")" -gt "$restarts" ] && certlet_in "$pod" health --readiness; }
	wait_for 30 back
	equal "the serial of $pod after kill -9" "$(sidecar_serial $pod)" "$serial"
	equal "the requests of $pod after kill -9" "$(request_of $pod .metadata.name | wc -l)" "$count"
	contains "why the sidecar of $pod ended" "$(ended_with $pod)" "137 "
done

# Meanwhile: directories that are refused.
EMPTY_DIR='' sidecar_pod disk common-name=disk | k apply -f -
no_tmpfs() { [[ $(ended_with disk) == *tmpfs* ]]; }
wait_for 60 no_tmpfs
echo "note: a directory on a disk: $(ended_with disk)"
wait_for 60 describes disk tmpfs
sidecar_pod foreign common-name=foreign |
	sed "s|^  initContainers:|&\n    - name: before\n      image: $POD_IMAGE\n      imagePullPolicy: IfNotPresent\n      command: [touch, /tls/tls.key]\n      securityContext: { $restricted }\n      volumeMounts: [{ name: certlet, mountPath: /tls }]|" |
	k apply -f -
is_refused() { [[ $(ended_with foreign) == [12]\ *tls.key* ]]; }
wait_for 60 is_refused
echo "note: a directory with another file: $(ended_with foreign)"

# The clients connected again: both have the renewed certificates.
over() { [[ $(k get pod client -o 'jsonpath={.status.phase}') =~ Succeeded|Failed ]]; }
renewed() { [ "$(k logs client -c main | grep '^{' | tail -n 1 | jq '[.peer_serials, .own_serials] | min')" -ge 2 ]; }
wait_for 100 renewed
for pod in server client; do
	pid=$(sidecar_pid $pod)
	anonymous=$(awk '$1 == "RssAnon:" { print $2 }' "/proc/$pid/status")
	echo "note: sidecar of $pod: $(awk '/^(VmRSS|RssAnon|RssFile|RssShmem|Threads):/ { printf "%s %s%s, ", $1, $2, ($3 == "kB") ? " KiB" : "" }' "/proc/$pid/status")limit 32 MiB"
	[ "$anonymous" -lt $((8 * 1024)) ] || fail "the sidecar of $pod has $anonymous KiB of anonymous memory"
done
wait_for 150 over
counters=$(k logs client -c main | grep '^{' | tail -n 1)
echo "note: $counters"
equal "failed requests" "$(jq .failed <<<"$counters")" 0
equal "how the client's pod ended" "$(k get pod client -o 'jsonpath={.status.phase}')" Succeeded
# A certificate each at the start and at each renewal.
[ "$(request_of client .metadata.name | wc -l)" -le 4 ] || fail "too many requests: $(request_of client .metadata.name)"
