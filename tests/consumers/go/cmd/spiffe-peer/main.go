// Command spiffe-peer is a server or client of mutual TLS with the X509-SVID of a certlet volume's socket, which go-spiffe follows.
//
//	spiffe-peer server -socket unix:///tls/spiffe.sock -peer spiffe://example.org/ns/shop/sa/client -listen :8443
//	spiffe-peer client -socket unix:///tls/spiffe.sock -peer spiffe://example.org/ns/shop/sa/server -connect 10.244.0.7:8443
//
// The client makes each request on a connection of its own, and prints its counters as JSON once a second.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("usage: spiffe-peer server|client [flags]")
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	socket := flags.String("socket", "unix:///tls/spiffe.sock", "the volume's socket, as in SPIFFE_ENDPOINT_SOCKET")
	peer := flags.String("peer", "", "the SPIFFE ID that the peer must prove")
	listen := flags.String("listen", ":8443", "server: address to listen on")
	connect := flags.String("connect", "", "client: address of the server")
	interval := flags.Duration("interval", 10*time.Millisecond, "client: time between requests")
	_ = flags.Parse(args[1:])

	id, err := spiffeid.FromString(*peer)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewX509Source(context.Background(), workloadapi.WithClientOptions(workloadapi.WithAddr(*socket)))
	if err != nil {
		return err
	}
	defer source.Close()
	switch args[0] {
	case "server":
		return serve(source, id, *listen)
	case "client":
		return call(source, id, *connect, *interval)
	}
	return fmt.Errorf("neither server nor client: %s", args[0])
}

func serve(source *workloadapi.X509Source, client spiffeid.ID, address string) error {
	listener, err := tls.Listen("tcp", address, tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(client)))
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			if _, err := io.WriteString(connection, "hello"); err != nil {
				log.Println(err)
			}
		}()
	}
}

func call(source *workloadapi.X509Source, server spiffeid.ID, address string, interval time.Duration) error {
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(server))
	var counters struct {
		OK        int    `json:"ok"`
		Failed    int    `json:"failed"`
		LastError string `json:"last_error,omitempty"`
	}
	out, report := json.NewEncoder(os.Stdout), time.Now()
	for {
		if err := request(address, config); err != nil {
			counters.Failed++
			counters.LastError = err.Error()
		} else {
			counters.OK++
		}
		if time.Since(report) > time.Second {
			if err := out.Encode(counters); err != nil {
				return err
			}
			report = time.Now()
		}
		time.Sleep(interval)
	}
}

func request(address string, config *tls.Config) error {
	connection, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer connection.Close()
	// With TLS 1.3 a server that refuses the client says so after the handshake.
	answer, err := io.ReadAll(connection)
	if err == nil && string(answer) != "hello" {
		err = fmt.Errorf("the server says %q", answer)
	}
	return err
}
