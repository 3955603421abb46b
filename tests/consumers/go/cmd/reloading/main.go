// Serves and calls over mutual TLS, and takes each renewal of a volume into use without a restart.
package main

import (
	"crypto/tls"
	"crypto/x509"
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

// Volume is a mounted volume.
type Volume struct {
	directory string
	mutex     sync.Mutex
	current   *Generation
}

// Generation is what a volume has until its next renewal.
type Generation struct {
	directory   string
	certificate *tls.Certificate
	anchors     *x509.CertPool
}

// Current returns the present generation. It costs one readlink, unless there is a new one. If that cannot be read, the old one stays.
func (v *Volume) Current() (*Generation, error) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	directory, err := filepath.EvalSymlinks(filepath.Join(v.directory, "..data"))
	if err == nil && (v.current == nil || v.current.directory != directory) {
		var loaded *Generation
		if loaded, err = load(directory); err == nil {
			v.current = loaded
		}
	}
	if err != nil && v.current != nil {
		log.Print("the old certificate stays: ", err)
		err = nil
	}
	return v.current, err
}

// load reads the directory of one generation, so that certificate, key and anchors belong together.
func load(directory string) (*Generation, error) {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(directory, "tls.crt"), filepath.Join(directory, "tls.key"))
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(filepath.Join(directory, "ca.crt"))
	if err != nil {
		return nil, err
	}
	anchors := x509.NewCertPool()
	if !anchors.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in ca.crt")
	}
	return &Generation{directory, &certificate, anchors}, nil
}

// Server is for http.Server and everything else that takes a *tls.Config.
func (v *Volume) Server() *tls.Config {
	return &tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now, err := v.Current()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				Certificates: []tls.Certificate{*now.certificate},
				ClientAuth:   tls.RequireAndVerifyClientCert,
				ClientCAs:    now.anchors,
				NextProtos:   []string{"h2", "http/1.1"},
			}, nil
		},
	}
}

// Client is for http.Transport and everything else that takes a *tls.Config.
func (v *Volume) Client() *tls.Config {
	return &tls.Config{
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			now, err := v.Current()
			if err != nil {
				return nil, err
			}
			return now.certificate, nil
		},
		// RootCAs is fixed. VerifyConnection verifies instead, with the present anchors.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			now, err := v.Current()
			if err != nil {
				return err
			}
			if state.ServerName == "" { // as with an IP address: no name would be checked
				return errors.New("the server has no name")
			}
			options := x509.VerifyOptions{Roots: now.anchors, DNSName: state.ServerName, Intermediates: x509.NewCertPool()}
			for _, intermediate := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(intermediate)
			}
			_, err = state.PeerCertificates[0].Verify(options)
			return err
		},
	}
}

func main() {
	directory := flag.String("volume", "/tls", "the mounted volume")
	address := flag.String("listen", ":8443", "where to serve")
	url := flag.String("call", "", "call this server, and serve nothing")
	flag.Parse()
	volume := &Volume{directory: *directory}
	if _, err := volume.Current(); err != nil {
		log.Fatal(err)
	}
	if *url == "" {
		server := http.Server{Addr: *address, TLSConfig: volume.Server(), Handler: http.HandlerFunc(hello)}
		log.Fatal(server.ListenAndServeTLS("", ""))
	}
	// A connection keeps the certificate of its handshake. Here each request has its own.
	transport := &http.Transport{TLSClientConfig: volume.Client(), DisableKeepAlives: true}
	for ; ; time.Sleep(time.Second) {
		call(&http.Client{Transport: transport, Timeout: 10 * time.Second}, *url)
	}
}

func hello(writer http.ResponseWriter, request *http.Request) {
	fmt.Fprintf(writer, "hello %x\n", request.TLS.PeerCertificates[0].SerialNumber)
}

func call(client *http.Client, url string) {
	response, err := client.Get(url)
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	defer response.Body.Close()
	io.Copy(os.Stdout, response.Body)
}
