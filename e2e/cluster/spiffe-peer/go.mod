module certlet.io/e2e/cluster/spiffe-peer

go 1.26.0

require github.com/spiffe/go-spiffe/v2 v2.9.0
