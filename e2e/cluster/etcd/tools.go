//go:build tools

// Package tools pins the program that build makes.
package tools

import _ "go.etcd.io/etcd/server/v3"
