// Command workload-api talks mutual TLS with the X509-SVID of a certlet volume's socket, which go-spiffe follows.
//
//	workload-api serve SOCKET CLIENT-ID      accepts connections from that ID; prints its address, then each peer or error
//	workload-api talk SOCKET ADDRESS ID      connects to a server of that ID for each line of input; prints the peer or an error
//
// SOCKET is written as in SPIFFE_ENDPOINT_SOCKET.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"certlet.io/tests/consumers/internal/mtls"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: workload-api serve SOCKET CLIENT-ID | talk SOCKET ADDRESS ID")
	}
	socket := workloadapi.WithClientOptions(workloadapi.WithAddr(args[1]))
	source, err := workloadapi.NewX509Source(context.Background(), socket)
	if err != nil {
		return err
	}
	defer source.Close()
	if args[0] == "serve" {
		return mtls.Serve(source, args[2])
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if peer, err := mtls.Dial(source, args[2], args[3]); err != nil {
			fmt.Println("error:", err)
		} else {
			fmt.Println(peer)
		}
	}
	return lines.Err()
}
