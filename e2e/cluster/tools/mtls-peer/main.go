// mtls-peer is a TLS 1.3 server or client that proves itself with a certificate volume, asks the same of its
// peer, and takes a new certificate into use as soon as the volume has one, as a well-made program would.
//
//	mtls-peer server -listen :8443
//	mtls-peer client -connect 10.244.0.7:8443 -server-name peer.test -until-serials 10 -timeout 5m
//	mtls-peer client -connect 10.244.0.7:8443 -spiffe-id spiffe://example.org/ns/shop/sa/server
//
// The client makes each request on a connection of its own and prints its counters as JSON once a second and at
// the end. It exits 0 when server and client have both shown the wanted number of distinct serials (or, without
// -until-serials, when -timeout is over) and no request failed.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: mtls-peer server|client [flags]")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	dir := flags.String("dir", "/tls", "the mounted certificate volume: tls.crt, tls.key, ca.crt")
	ca := flags.String("ca", "", "verify the peer against this file instead of the volume's ca.crt")
	listen := flags.String("listen", ":8443", "server: address to listen on")
	connect := flags.String("connect", "", "client: address of the server")
	name := flags.String("server-name", "", "client: the DNS name the server must prove")
	id := flags.String("spiffe-id", "", "client: the SPIFFE ID the server must prove, instead of a DNS name")
	interval := flags.Duration("interval", 20*time.Millisecond, "client: time between requests")
	parallel := flags.Int("parallel", 1, "client: requests at the same time")
	serials := flags.Int("until-serials", 0, "client: stop once both sides have shown this many distinct serials")
	timeout := flags.Duration("timeout", time.Minute, "client: stop after this time")
	_ = flags.Parse(os.Args[2:])

	volume := &volume{dir: *dir, ca: *ca}
	switch os.Args[1] {
	case "server":
		log.Fatal(serve(volume, *listen))
	case "client":
		client := &client{volume: volume, url: "https://" + *connect, name: *name, id: *id}
		if err := client.loop(*parallel, *interval, *serials, *timeout); err != nil {
			log.Fatal(err)
		}
	default:
		log.Fatalf("neither server nor client: %s", os.Args[1])
	}
}

// volume reads a certificate volume once per generation. All files of one generation are read from the directory
// that ..data names, so that key and certificate belong together even if the generation changes meanwhile.
type volume struct {
	dir, ca string

	mu    sync.Mutex
	seen  string
	pair  *tls.Certificate
	roots *x509.CertPool
}

func (v *volume) current() (*tls.Certificate, *x509.CertPool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for try := 0; ; try++ {
		generation, err := filepath.EvalSymlinks(filepath.Join(v.dir, "..data"))
		if err == nil && generation == v.seen {
			return v.pair, v.roots, nil
		}
		if err == nil {
			if err = v.load(generation); err == nil {
				v.seen = generation
				return v.pair, v.roots, nil
			}
		}
		// The generation was replaced between reading the link and reading the files: try again.
		if !errors.Is(err, os.ErrNotExist) || try == 10 {
			return nil, nil, fmt.Errorf("reading %s: %w", v.dir, err)
		}
	}
}

func (v *volume) load(generation string) error {
	pair, err := tls.LoadX509KeyPair(filepath.Join(generation, "tls.crt"), filepath.Join(generation, "tls.key"))
	if err != nil {
		return err
	}
	ca := v.ca
	if ca == "" {
		ca = filepath.Join(generation, "ca.crt")
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("no certificate in %s", ca)
	}
	v.pair, v.roots = &pair, roots
	return nil
}

func serve(v *volume, address string) error {
	if _, _, err := v.current(); err != nil {
		return err
	}
	server := &http.Server{
		Addr: address,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintln(w, r.TLS.PeerCertificates[0].SerialNumber)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
				pair, roots, err := v.current()
				if err != nil {
					return nil, err
				}
				return &tls.Config{
					MinVersion:   tls.VersionTLS13,
					Certificates: []tls.Certificate{*pair},
					ClientAuth:   tls.RequireAndVerifyClientCert,
					ClientCAs:    roots,
				}, nil
			},
		},
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

type client struct {
	volume        *volume
	url, name, id string
}

// tally is what all requests of a client have counted together.
type tally struct {
	mu        sync.Mutex
	count     counters
	peer, own map[string]bool
	reported  time.Time
}

func (t *tally) add(theirs, ours string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.count.Failed++
		t.count.LastError = err.Error()
	} else {
		t.count.OK++
		t.peer[theirs], t.own[ours] = true, true
	}
	t.count.PeerSerials, t.count.OwnSerials = len(t.peer), len(t.own)
	if time.Since(t.reported) > time.Second {
		_ = json.NewEncoder(os.Stdout).Encode(t.count)
		t.reported = time.Now()
	}
}

// seen returns whether both sides have shown that many serials.
func (t *tally) seen(serials int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.peer) >= serials && len(t.own) >= serials
}

func (c *client) loop(parallel int, interval time.Duration, until int, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	tally := &tally{peer: map[string]bool{}, own: map[string]bool{}, reported: time.Now()}
	var requests sync.WaitGroup
	for range parallel {
		requests.Go(func() {
			for ctx.Err() == nil && (until == 0 || !tally.seen(until)) {
				tally.add(c.request())
				time.Sleep(interval)
			}
		})
	}
	requests.Wait()
	count := tally.count
	_ = json.NewEncoder(os.Stdout).Encode(count)
	switch {
	case count.Failed > 0:
		return fmt.Errorf("%d requests failed, the last: %s", count.Failed, count.LastError)
	case until > 0 && !tally.seen(until):
		return fmt.Errorf("timeout: saw %d serials of the server and %d of our own, wanted %d", count.PeerSerials, count.OwnSerials, until)
	}
	return nil
}

// request does one GET on a connection of its own and returns the serial that the server showed to us, and ours
// as the server saw it.
func (c *client) request() (theirs, ours string, err error) {
	pair, roots, err := c.volume.current()
	if err != nil {
		return "", "", err
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{*pair},
		RootCAs:      roots,
		ServerName:   c.name,
	}
	if c.id != "" {
		// The library can only compare DNS names and addresses, so the whole verification is ours.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(state tls.ConnectionState) error { return verifyID(state.PeerCertificates, roots, c.id) }
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}
	response, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get(c.url)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", "", fmt.Errorf("%s: %s", response.Status, body)
	}
	return response.TLS.PeerCertificates[0].SerialNumber.String(), string(body), nil
}

// verifyID verifies the server's chain, and that its certificate has that SPIFFE ID as its only URI.
func verifyID(chain []*x509.Certificate, roots *x509.CertPool, id string) error {
	intermediates := x509.NewCertPool()
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates}); err != nil {
		return err
	}
	if uris := chain[0].URIs; len(uris) != 1 || uris[0].String() != id {
		return fmt.Errorf("the server is %v, should be %s", uris, id)
	}
	return nil
}
