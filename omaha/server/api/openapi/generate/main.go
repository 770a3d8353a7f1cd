// Command generate writes the OpenAPI document, in the folder of package openapi.
package main

import (
	"fmt"
	"os"

	"github.com/semper-os/semper/omaha/server/api/openapi/document"
)

func main() {
	b, err := document.Make("..", "../../rollout")
	if err == nil {
		err = os.WriteFile(os.Args[1], b, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}
