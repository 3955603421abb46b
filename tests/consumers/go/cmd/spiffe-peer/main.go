// Command spiffe-peer is a server or client of mutual TLS with the X509-SVID of a certlet volume's socket, which go-spiffe follows.
//
//	spiffe-peer server -socket unix:///tls/spiffe.sock -peer spiffe://example.org/ns/shop/sa/client -listen :8443
//	spiffe-peer client -socket unix:///tls/spiffe.sock -peer spiffe://example.org/ns/shop/sa/server -connect 10.244.0.7:8443
//
// -peer may also be a trust domain of which the peer must be a member. The client makes each request on a connection of its own, and
// prints its counters as JSON once a second and at the end. It exits 0 when both sides have shown the number of serials of -until-serials,
// or after -timeout, and no request failed.
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
	peer := flags.String("peer", "", "the SPIFFE ID that the peer must prove, or its trust domain as spiffe://example.org")
	listen := flags.String("listen", ":8443", "server: address to listen on")
	connect := flags.String("connect", "", "client: address of the server")
	interval := flags.Duration("interval", 10*time.Millisecond, "client: time between requests")
	serials := flags.Int("until-serials", 0, "client: stop once both sides have shown this many distinct serials")
	timeout := flags.Duration("timeout", 0, "client: stop after this time")
	_ = flags.Parse(args[1:])

	accepted, err := accept(*peer)
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
		return serve(source, accepted, *listen)
	case "client":
		return call(tlsconfig.MTLSClientConfig(source, source, accepted), *connect, *interval, *serials, *timeout)
	}
	return fmt.Errorf("neither server nor client: %s", args[0])
}

func accept(peer string) (tlsconfig.Authorizer, error) {
	id, err := spiffeid.FromString(peer)
	if err == nil && id.Path() == "" {
		return tlsconfig.AuthorizeMemberOf(id.TrustDomain()), nil
	}
	return tlsconfig.AuthorizeID(id), err
}

// serve answers with the serial of the client's certificate.
func serve(source *workloadapi.X509Source, client tlsconfig.Authorizer, address string) error {
	listener, err := tls.Listen("tcp", address, tlsconfig.MTLSServerConfig(source, source, client))
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
			if err := answer(connection.(*tls.Conn)); err != nil {
				log.Println(err)
			}
		}()
	}
}

func answer(connection *tls.Conn) error {
	if err := connection.Handshake(); err != nil {
		return err
	}
	_, err := io.WriteString(connection, serial(connection))
	return err
}

func serial(connection *tls.Conn) string {
	return connection.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// call makes requests until both sides have shown that many serials, or the time is over. Zero means that there is no such end.
func call(config *tls.Config, address string, interval time.Duration, until int, timeout time.Duration) error {
	var counters struct {
		OK          int    `json:"ok"`
		Failed      int    `json:"failed"`
		PeerSerials int    `json:"peer_serials"`
		OwnSerials  int    `json:"own_serials"`
		LastError   string `json:"last_error,omitempty"`
	}
	peer, own := map[string]bool{}, map[string]bool{}
	out, begin, report := json.NewEncoder(os.Stdout), time.Now(), time.Now()
	for (until == 0 || len(peer) < until || len(own) < until) && (timeout == 0 || time.Since(begin) < timeout) {
		if theirs, ours, err := request(address, config); err != nil {
			counters.Failed++
			counters.LastError = err.Error()
		} else {
			counters.OK++
			peer[theirs], own[ours] = true, true
		}
		counters.PeerSerials, counters.OwnSerials = len(peer), len(own)
		if time.Since(report) > time.Second {
			if err := out.Encode(counters); err != nil {
				return err
			}
			report = time.Now()
		}
		time.Sleep(interval)
	}
	if counters.Failed > 0 {
		return fmt.Errorf("%d requests failed, the last: %s", counters.Failed, counters.LastError)
	}
	if len(peer) < until || len(own) < until {
		return fmt.Errorf("timeout: saw %d serials of the server and %d of our own, wanted %d", len(peer), len(own), until)
	}
	return out.Encode(counters)
}

// request returns the serial that the server showed to us, and ours as the server saw it.
func request(address string, config *tls.Config) (theirs, ours string, err error) {
	connection, err := tls.Dial("tcp", address, config)
	if err != nil {
		return "", "", err
	}
	defer connection.Close()
	// With TLS 1.3 a server that refuses the client says so after the handshake.
	answer, err := io.ReadAll(connection)
	if err == nil && len(answer) == 0 {
		err = errors.New("the server says nothing")
	}
	return serial(connection), string(answer), err
}
