// Command semper-init is /init of the initramfs: it finds, verifies and mounts the root, and becomes systemd. See package initramfs.
package main

import (
	"fmt"
	"os"

	"github.com/semper-os/semper/initramfs"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "semper-init: this program runs only as process 1 of an initramfs")
		os.Exit(2)
	}
	initramfs.Main()
}
