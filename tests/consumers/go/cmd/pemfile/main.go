// Command pemfile serves and calls gRPC over mutual TLS in one process, with the files of a certlet volume that gRPC's pemfile
// certificate provider follows. For each line of input it opens a new connection, and prints the serial number of the server's
// certificate (hexadecimal), or an error.
//
//	pemfile VOLUME
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/tls/certprovider"
	"google.golang.org/grpc/credentials/tls/certprovider/pemfile"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/security/advancedtls"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: pemfile VOLUME")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(volume string) error {
	provider, err := pemfile.NewProvider(pemfile.Options{
		CertFile:        filepath.Join(volume, "tls.crt"),
		KeyFile:         filepath.Join(volume, "tls.key"),
		RootFile:        filepath.Join(volume, "ca.crt"),
		RefreshDuration: time.Second,
	})
	if err != nil {
		return err
	}
	address, err := serve(provider)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if serial, err := call(provider, address); err != nil {
			fmt.Println("error:", err)
		} else {
			fmt.Println(serial)
		}
	}
	return lines.Err()
}

// options are those of client and server: the identities of both come from the provider.
func options(provider certprovider.Provider) *advancedtls.Options {
	return &advancedtls.Options{
		IdentityOptions:   advancedtls.IdentityCertificateOptions{IdentityProvider: provider},
		RootOptions:       advancedtls.RootCertificateOptions{RootProvider: provider},
		RequireClientCert: true,
		VerificationType:  advancedtls.CertVerification,
	}
}

func serve(provider certprovider.Provider) (string, error) {
	tls, err := advancedtls.NewServerCreds(options(provider))
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := grpc.NewServer(grpc.Creds(tls))
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { log.Fatal(server.Serve(listener)) }()
	return listener.Addr().String(), nil
}

func call(provider certprovider.Provider, address string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tls, err := advancedtls.NewClientCreds(options(provider))
	if err != nil {
		return "", err
	}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(tls))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	var server peer.Peer
	_, err = healthpb.NewHealthClient(connection).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&server))
	if err != nil {
		return "", err
	}
	info, ok := server.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return "", fmt.Errorf("no TLS: %v", server.AuthInfo)
	}
	return fmt.Sprintf("%x", info.State.PeerCertificates[0].SerialNumber), nil
}
