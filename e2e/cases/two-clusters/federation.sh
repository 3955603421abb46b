#!/usr/bin/env bash
# Two clusters with a root and a trust domain each, federated by the exchange of their trust bundles.
# - Workloads get the other domain's trust bundle over the socket. go-spiffe clients and servers talk mutual TLS in both directions while
#   all certificates rotate. No request fails.
# - An SVID of a trust domain that is not federated, another SPIFFE ID, and an SVID of domain one that the root of domain two has signed
#   are refused. docs/trust.md quotes the clients' errors.
# needs: certlet own-cluster second-cluster spiffe-peer
. "$(dirname "$0")/../../lib.sh"
. "$(dirname "$0")/../support/two-clusters.sh"

"$E2E_CLUSTER/image" spiffe-pod:1 "$(command -v busybox)" "$(command -v openssl)" "$E2E_RUN/bin/spiffe-peer"
