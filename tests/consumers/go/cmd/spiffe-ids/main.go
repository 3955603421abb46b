// Command spiffe-ids reads texts from standard input, one per line, and prints for each whether it is a SPIFFE ID: "ok", or
// the reason why it is none.
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if _, err := spiffeid.FromString(lines.Text()); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("ok")
		}
	}
	if err := lines.Err(); err != nil {
		log.Fatal(err)
	}
}
