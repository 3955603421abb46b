package main

import (
	"path/filepath"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/tls/certprovider"
	"google.golang.org/grpc/credentials/tls/certprovider/pemfile"
	"google.golang.org/grpc/security/advancedtls"
)

// follow reads the files of a volume again and again. The provider is for all connections of the process.
func follow(volume string, every time.Duration) (certprovider.Provider, error) {
	return pemfile.NewProvider(pemfile.Options{
		CertFile:        filepath.Join(volume, "tls.crt"),
		KeyFile:         filepath.Join(volume, "tls.key"),
		RootFile:        filepath.Join(volume, "ca.crt"),
		RefreshDuration: every,
	})
}

// server is for grpc.NewServer(grpc.Creds(...)).
func server(provider certprovider.Provider) (credentials.TransportCredentials, error) {
	return advancedtls.NewServerCreds(&advancedtls.Options{
		IdentityOptions:   advancedtls.IdentityCertificateOptions{IdentityProvider: provider},
		RootOptions:       advancedtls.RootCertificateOptions{RootProvider: provider},
		RequireClientCert: true,
		VerificationType:  advancedtls.CertVerification, // a client has no host name
	})
}

// client is for grpc.NewClient(address, grpc.WithTransportCredentials(...)).
func client(provider certprovider.Provider) (credentials.TransportCredentials, error) {
	return advancedtls.NewClientCreds(&advancedtls.Options{
		IdentityOptions:  advancedtls.IdentityCertificateOptions{IdentityProvider: provider},
		RootOptions:      advancedtls.RootCertificateOptions{RootProvider: provider},
		VerificationType: advancedtls.CertAndHostVerification,
	})
}
