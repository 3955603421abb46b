// spiffe-peer is a mutual TLS server or client with the X509-SVID and the trust bundles of a volume's socket, by go-spiffe.
//
//	spiffe-peer server -listen :8443 -peer spiffe://one.test
//	spiffe-peer client -connect 10.244.0.7:8443 -peer spiffe://two.test/ns/shop/sa/server -until-serials 4
//
// -peer is the SPIFFE ID that the other side must prove, or a trust domain of which it must be a member. The client prints its counters
// as JSON, and exits as mtls-peer does.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: spiffe-peer server|client [flags]")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	socket := flags.String("socket", "unix:///tls/socket", "the volume's socket")
	peer := flags.String("peer", "", "SPIFFE ID or trust domain of the other side")
	listen := flags.String("listen", ":8443", "server: address to listen on")
	connect := flags.String("connect", "", "client: address of the server")
	serials := flags.Int("until-serials", 0, "client: stop once both sides have shown this many distinct serials")
	timeout := flags.Duration("timeout", time.Minute, "client: stop after this time")
	interval := flags.Duration("interval", 20*time.Millisecond, "client: time between requests")
	_ = flags.Parse(os.Args[2:])

	authorizer, err := authorizer(*peer)
	if err != nil {
		log.Fatal(err)
	}
	source, err := workloadapi.NewX509Source(context.Background(), workloadapi.WithClientOptions(workloadapi.WithAddr(*socket)))
	if err != nil {
		log.Fatal(err)
	}
	switch os.Args[1] {
	case "server":
		log.Fatal(serve(source, authorizer, *listen))
	case "client":
		transport := &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   tlsconfig.MTLSClientConfig(source, source, authorizer),
		}
		client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
		if err := loop(client, "https://"+*connect, *interval, *serials, *timeout); err != nil {
			log.Fatal(err)
		}
	default:
		log.Fatalf("neither server nor client: %s", os.Args[1])
	}
}

func authorizer(peer string) (tlsconfig.Authorizer, error) {
	id, err := spiffeid.FromString(peer)
	if err != nil {
		return nil, err
	}
	if id.Path() == "" {
		return tlsconfig.AuthorizeMemberOf(id.TrustDomain()), nil
	}
	return tlsconfig.AuthorizeID(id), nil
}

// serve answers with the serial of the client's certificate.
func serve(source *workloadapi.X509Source, authorizer tlsconfig.Authorizer, address string) error {
	server := &http.Server{
		Addr: address,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         tlsconfig.MTLSServerConfig(source, source, authorizer),
	}
	return server.ListenAndServeTLS("", "")
}

// counters is what the client prints.
type counters struct {
	OK          int    `json:"ok"`
	Failed      int    `json:"failed"`
	PeerSerials int    `json:"peer_serials"`
	OwnSerials  int    `json:"own_serials"`
	LastError   string `json:"last_error,omitempty"`
}

func loop(client *http.Client, url string, interval time.Duration, until int, timeout time.Duration) error {
	peer, own := map[string]bool{}, map[string]bool{}
	count := counters{}
	end := time.Now().Add(timeout)
	for time.Now().Before(end) && (until == 0 || len(peer) < until || len(own) < until) {
		theirs, ours, err := request(client, url)
		if err != nil {
			count.Failed++
			count.LastError = err.Error()
		} else {
			count.OK++
			peer[theirs], own[ours] = true, true
		}
		count.PeerSerials, count.OwnSerials = len(peer), len(own)
		time.Sleep(interval)
	}
	_ = json.NewEncoder(os.Stdout).Encode(count)
	switch {
	case count.Failed > 0:
		return fmt.Errorf("%d requests failed, the last: %s", count.Failed, count.LastError)
	case len(peer) < until || len(own) < until:
		return fmt.Errorf("timeout: saw %d serials of the server and %d of our own, wanted %d", len(peer), len(own), until)
	}
	return nil
}

// request does one GET on a connection of its own, and returns the serials of the server's certificate and of ours.
func request(client *http.Client, url string) (theirs, ours string, err error) {
	response, err := client.Get(url)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", "", err
	}
	return serial(response.TLS), string(body), nil
}

func serial(state *tls.ConnectionState) string { return state.PeerCertificates[0].SerialNumber.String() }
