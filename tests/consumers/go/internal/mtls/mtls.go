// Package mtls talks mutual TLS with X509-SVIDs. A peer is shown as the serial number of its certificate (hexadecimal) and its SPIFFE
// ID.
package mtls

import (
	"crypto/tls"
	"fmt"
	"io"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

const greeting = "hello"

// Source is where an SVID and the bundles come from.
type Source interface {
	x509svid.Source
	x509bundle.Source
}

// Serve accepts connections from one SPIFFE ID. It prints its address, then each peer or error.
func Serve(source Source, client string) error {
	id, err := spiffeid.FromString(client)
	if err != nil {
		return err
	}
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(id))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		if peer, err := greet(connection.(*tls.Conn)); err != nil {
			fmt.Println("error:", err)
		} else {
			fmt.Println(peer)
		}
	}
}

func greet(connection *tls.Conn) (string, error) {
	defer connection.Close()
	if err := connection.Handshake(); err != nil {
		return "", err
	}
	if _, err := io.WriteString(connection, greeting); err != nil {
		return "", err
	}
	return peer(connection)
}

// Dial connects to a server of one SPIFFE ID, and returns the peer.
func Dial(source Source, address, server string) (string, error) {
	id, err := spiffeid.FromString(server)
	if err != nil {
		return "", err
	}
	connection, err := tls.Dial("tcp", address, tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(id)))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	// With TLS 1.3 a server that refuses the client says so after the handshake.
	answer, err := io.ReadAll(connection)
	if err != nil {
		return "", err
	}
	if string(answer) != greeting {
		return "", fmt.Errorf("the server says %q", answer)
	}
	return peer(connection)
}

func peer(connection *tls.Conn) (string, error) {
	leaf := connection.ConnectionState().PeerCertificates[0]
	id, err := x509svid.IDFromCert(leaf)
	return fmt.Sprintf("%x %s", leaf.SerialNumber, id), err
}
