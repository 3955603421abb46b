// Command svid uses the X509-SVID in a certlet volume.
//
//	svid verify VOLUME               verifies it, and prints its SPIFFE ID
//	svid serve VOLUME CLIENT-ID      accepts mutual TLS from that ID; prints its address, then each peer or error
//	svid dial VOLUME ADDRESS ID      connects to a server of that ID, and prints the peer
//
// A peer is printed as the serial number of its certificate (hexadecimal) and its SPIFFE ID.
package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"certlet.io/tests/consumers/internal/volume"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

const greeting = "hello"

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "verify":
		return verify(volume.Volume(args[1]))
	case len(args) == 3 && args[0] == "serve":
		return serve(volume.Volume(args[1]), args[2])
	case len(args) == 4 && args[0] == "dial":
		return dial(volume.Volume(args[1]), args[2], args[3])
	}
	return errors.New("usage: svid verify VOLUME | serve VOLUME CLIENT-ID | dial VOLUME ADDRESS ID")
}

func verify(v volume.Volume) error {
	svid, err := v.GetX509SVID()
	if err != nil {
		return err
	}
	var raw [][]byte
	for _, certificate := range svid.Certificates {
		raw = append(raw, certificate.Raw)
	}
	id, _, err := x509svid.ParseAndVerify(raw, v)
	if err != nil {
		return err
	}
	fmt.Println(id)
	return nil
}

func serve(v volume.Volume, client string) error {
	id, err := spiffeid.FromString(client)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(v, v, tlsconfig.AuthorizeID(id)))
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

func dial(v volume.Volume, address, server string) error {
	id, err := spiffeid.FromString(server)
	if err != nil {
		return err
	}
	connection, err := tls.Dial("tcp", address, tlsconfig.MTLSClientConfig(v, v, tlsconfig.AuthorizeID(id)))
	if err != nil {
		return err
	}
	defer connection.Close()
	// With TLS 1.3 a server that refuses the client says so after the handshake.
	answer, err := io.ReadAll(connection)
	if err != nil {
		return err
	}
	if string(answer) != greeting {
		return fmt.Errorf("the server says %q", answer)
	}
	peer, err := peer(connection)
	if err != nil {
		return err
	}
	fmt.Println(peer)
	return nil
}

func peer(connection *tls.Conn) (string, error) {
	leaf := connection.ConnectionState().PeerCertificates[0]
	id, err := x509svid.IDFromCert(leaf)
	return fmt.Sprintf("%x %s", leaf.SerialNumber, id), err
}
