// Command grpc serves and calls gRPC over mutual TLS in one process, with the credentials of a certlet volume. For each line of input it
// opens a new connection, and prints the serial number of the server's certificate (hexadecimal), or an error.
//
//	grpc files VOLUME NAME    the files, which gRPC's pemfile certificate provider follows, for a server of that name
//	grpc socket ID            the socket in SPIFFE_ENDPOINT_SOCKET, for a server of that SPIFFE ID
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	ours, theirs, name, err := both(args)
	if err != nil {
		return err
	}
	address, err := serve(ours)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if serial, err := call(theirs, address, name); err != nil {
			fmt.Println("error:", err)
		} else {
			fmt.Println(serial)
		}
	}
	return lines.Err()
}

// both returns the credentials of server and client, and the server's name.
func both(args []string) (ours, theirs credentials.TransportCredentials, name string, err error) {
	switch {
	case len(args) == 2 && args[0] == "socket":
		ours, theirs, err = spiffe(context.Background(), args[1])
		return ours, theirs, "web", err
	case len(args) == 3 && args[0] == "files":
		provider, err := follow(args[1], time.Second)
		if err != nil {
			return nil, nil, "", err
		}
		ours, ourErr := server(provider)
		theirs, theirErr := client(provider)
		return ours, theirs, args[2], errors.Join(ourErr, theirErr)
	}
	return nil, nil, "", errors.New("usage: grpc files VOLUME NAME | grpc socket ID")
}

func serve(transport credentials.TransportCredentials) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := grpc.NewServer(grpc.Creds(transport))
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { log.Fatal(server.Serve(listener)) }()
	return listener.Addr().String(), nil
}

func call(transport credentials.TransportCredentials, address, name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(transport), grpc.WithAuthority(name))
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
