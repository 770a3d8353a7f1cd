// Command generate writes the methods that call the operations of the update server's REST interface.
package main

import (
	"fmt"
	"os"

	"github.com/semper-os/semper/omaha/server/client/methods"
)

func main() {
	b, err := methods.Make()
	if err == nil {
		err = os.WriteFile(os.Args[1], b, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}
