package main

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/credentials"
)

// spiffe returns the credentials of server and client from the socket in SPIFFE_ENDPOINT_SOCKET. Both accept one SPIFFE ID.
func spiffe(ctx context.Context, peer string) (server, client credentials.TransportCredentials, err error) {
	id, err := spiffeid.FromString(peer)
	if err != nil {
		return nil, nil, err
	}
	source, err := workloadapi.NewX509Source(ctx) // open for as long as the process
	if err != nil {
		return nil, nil, err
	}
	accepted := tlsconfig.AuthorizeID(id)
	server = credentials.NewTLS(tlsconfig.MTLSServerConfig(source, source, accepted))
	client = credentials.NewTLS(tlsconfig.MTLSClientConfig(source, source, accepted))
	return server, client, nil
}
