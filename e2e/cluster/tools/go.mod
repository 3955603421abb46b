module certlet.io/e2e/cluster/tools

go 1.26.0
