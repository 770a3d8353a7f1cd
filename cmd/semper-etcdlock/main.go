// Command semper-etcdlock takes, proves or gives back this machine's reboot lock in etcd, once, for semperd: package updater/etcdlock says how it is asked.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/etcdlock/semaphore"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "semper-etcdlock: "+err.Error())
	}
	os.Exit(fault.ExitCode(err))
}

func run(ctx context.Context, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Usage, "it takes no arguments: semperd starts it, with a call as JSON on standard input")
	}
	return semaphore.Serve(ctx, os.Stdin, os.Stdout)
}
