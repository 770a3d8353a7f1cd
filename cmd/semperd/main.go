// Command semperd is the update agent: it polls, downloads, hands over to semper-installd, reports and has the machine rebooted. It runs without any right;
// package agent says how it works, package daemon what is around it. systemd starts it with semperctl's socket.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/daemon"
	"github.com/semper-os/semper/updater/journal"
)

func main() {
	slog.SetDefault(journal.Logger("semperd"))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		slog.Error(err.Error())
	}
	os.Exit(fault.ExitCode(err))
}

func run(ctx context.Context, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Usage, "semperd takes no arguments; its settings are in /etc/semper/update.d")
	}
	listeners, err := activation.Listeners()
	if err != nil || len(listeners) != 1 || listeners[0] == nil {
		return fault.New(fault.Usage, "want exactly one socket from systemd, got %d (%v)", len(listeners), err)
	}
	d, err := daemon.New(daemon.MachinePaths(), slog.Default())
	if err != nil {
		return err
	}
	if _, err := sd.SdNotify(false, sd.SdNotifyReady); err != nil {
		slog.Warn("notify systemd", "error", err)
	}
	return d.Run(ctx, listeners[0])
}
