// Command svid uses the X509-SVID in a certlet volume.
//
//	svid verify VOLUME               verifies it, and prints its SPIFFE ID
//	svid serve VOLUME CLIENT-ID      accepts mutual TLS from that ID; prints its address, then each peer or error
//	svid dial VOLUME ADDRESS ID      connects to a server of that ID, and prints the peer
//
// A peer is printed as the serial number of its certificate (hexadecimal) and its SPIFFE ID.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"

	"certlet.io/tests/consumers/internal/mtls"
	"certlet.io/tests/consumers/internal/volume"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

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
		return mtls.Serve(volume.Volume(args[1]), args[2])
	case len(args) == 4 && args[0] == "dial":
		peer, err := mtls.Dial(volume.Volume(args[1]), args[2], args[3])
		if err == nil {
			fmt.Println(peer)
		}
		return err
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
