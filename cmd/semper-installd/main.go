// Command semper-installd writes updates to the idle slot and decides which version the boot loader tries. It is root and has no network; package install
// says what it believes. "serve" is started by its socket; "bless" and "rollback" by units of the boot.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/drain"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/journal"
	"github.com/semper-os/semper/updater/marker"
)

const (
	idle  = time.Minute // without a connection, until "serve" ends; its socket starts it again
	agent = "semperd"   // the user that may connect, beside root
)

func main() {
	slog.SetDefault(journal.Logger("semper-installd"))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "semper-installd",
		Short:         "Write updates to the idle slot, and keep the boot entries",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(*cobra.Command, []string) error {
			return fault.New(fault.Usage, "want one of serve, bless, rollback, drain, next-root")
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fault.Wrap(fault.Usage, err) })
	root.AddCommand(serveCommand(), blessCommand(), rollbackCommand())
	root.AddCommand(drainCommand(), nextRootCommand())
	err := root.ExecuteContext(ctx)
	if err != nil {
		slog.Error(err.Error())
	}
	stop()
	os.Exit(fault.ExitCode(err))
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Usage, "%s takes no arguments", c.CommandPath())
	}
	return nil
}

// newCore returns the core for this machine.
func newCore(reboot func() error) (*install.Core, error) {
	m, err := install.ReadMachine("/")
	if err != nil {
		return nil, fmt.Errorf("what runs here: %w", err)
	}
	return install.New(install.Options{
		Machine: m,
		Storage: func() (install.Storage, error) { return install.OpenStorage(m) },
		Trust:   func() (install.Trust, error) { return install.LoadTrust("/") },

		SoftReboot: install.SoftRebootByLogind,
		Reboot:     reboot,
		Holders:    install.Holders,
		Now:        time.Now,
		Log:        slog.Default(),
		Drain: func(ctx context.Context, from, to string) error {
			return drain.Client{}.Drain(ctx, drain.Request{Reason: "reboot into version " + to, From: from, To: to, Limit: drainLimit()})
		},
		Undrain: drain.Client{}.Undrain,
		Warn:    drain.Client{}.Warn,
		Marker:  mark,
	}), nil
}

// drainLimit is the time for all drain hooks together. The settings are root's; if they are wrong, semperd says so, and the default counts here.
func drainLimit() time.Duration {
	s, err := config.Load("/", "")
	if err != nil {
		slog.Warn("the default time limit for drain hooks counts", "error", err)
		s = config.Defaults()
	}
	return s.Reboot.DrainTimeout
}

// markerFolder is linked from /run, see tmpfiles.d/semper.conf.
const markerFolder = "/run/semper/marker"

// mark tells other programs whether a version waits for its reboot. Nothing depends on it.
func mark(pending bool, version string) {
	err := marker.Clear(markerFolder)
	if pending {
		err = marker.Set(markerFolder, "semper "+version)
	}
	if err != nil {
		slog.Warn("reboot-required", "error", err)
	}
}

func serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Answer semperd on the socket that systemd passes in",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			listeners, err := activation.Listeners()
			if err != nil || len(listeners) != 1 || listeners[0] == nil {
				return fault.New(fault.Usage, "want exactly one socket from systemd, got %d (%v)", len(listeners), err)
			}
			allowed, err := allowedUsers()
			if err != nil {
				return err
			}
			core, err := newCore(install.RebootByLogind)
			if err != nil {
				return err
			}
			if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
				slog.Warn("notify systemd", "error", err)
			}
			s := install.Server{Core: core, Allowed: allowed, Idle: idle, Log: slog.Default()}
			return s.Serve(c.Context(), listeners[0])
		},
	}
}

func allowedUsers() ([]uint32, error) {
	u, err := user.Lookup(agent)
	if err != nil {
		return nil, fault.New(fault.IO, "the update agent's user: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fault.New(fault.IO, "the update agent's user: %w", err)
	}
	return []uint32{0, uint32(uid)}, nil
}

func blessCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "bless",
		Short: "Mark the running version as good: the boot loader stops counting",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			core, err := newCore(nil)
			if err != nil {
				return err
			}
			return core.Bless()
		},
	}
}

func rollbackCommand() *cobra.Command {
	var result string
	var later, now bool
	c := &cobra.Command{
		Use:   "rollback",
		Short: "Give the running version up, if it is on trial and there is another one, and reboot into that",
		Long: "Give the running version up, if it is on trial and there is another one, and reboot into that.\n\n" +
			"With --later also a version that was healthy before: the next boot goes to the other slot, once for a version. semperd reboots by its\n" +
			"strategy; with --now the machine reboots at once.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			core, err := newCore(install.RebootByAllMeans)
			if err != nil {
				return err
			}
			if later {
				if err := core.RollbackLater(readResult(result)); err != nil || !now {
					return err
				}
				return install.RebootByAllMeans()
			}
			if now {
				return fault.New(fault.Usage, "--now goes with --later")
			}
			went, err := core.Rollback(readResult(result))
			if went && err == nil {
				slog.Info("rebooting into the version before")
			}
			return err
		},
	}
	c.Flags().BoolVar(&later, "later", false, "leave a version that was healthy before, too")
	c.Flags().BoolVar(&now, "now", false, "with --later: reboot at once")
	c.Flags().StringVar(&result, "health", "", "the health checks' result, a JSON file")
	return c
}

// maxResult bounds the file of the health checks: 100 checks with 4 KiB of output each, escaped.
const maxResult = 4 << 20

// readResult reads the health checks' result. Whatever is wrong with it, the way back does not depend on it.
func readResult(path string) *health.Result {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() > maxResult {
		err = fmt.Errorf("%d bytes", info.Size())
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	var r health.Result
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		slog.Warn("result of the health checks", "file", path, "error", err)
		return nil
	}
	return &r
}
