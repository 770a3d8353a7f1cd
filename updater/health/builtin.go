package health

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/semper-os/semper/updater/hook"
)

// The builtin checks.
const (
	FailedUnits = "failed-units" // no unit of the image has failed
	Network     = "network"      // there is a default route, and a global address of its family
	Agent       = "agent"        // semperd answers: a version whose agent does not could never be replaced
	Server      = "server"       // semperd reached the update server since this boot; whether that is required is for the settings to say
)

// Builtins are all of them.
var Builtins = []string{FailedUnits, Network, Agent, Server}

// Mode says what the builtin check "server" means on this machine.
type Mode string

// The modes. Every other word is ModeOff.
const (
	ModeRequired Mode = "required"
	ModeAdvisory Mode = "advisory"
	ModeOff      Mode = "off"
)

// Host is what checks ask about the machine.
type Host struct {
	Systemctl string                      // the program; "": systemctl
	Root      string                      // where /proc is; "": "/"
	Addresses func() ([]net.Addr, error)  // nil: net.InterfaceAddrs, which asks the kernel by netlink
	Agent     func(context.Context) error // nil when semperd answers
	Server    func(context.Context) error // nil when semperd reached the update server since this boot
	// ServerMode is from the machine's settings.
	ServerMode Mode
}

// check makes one attempt.
func (h Host) check(ctx context.Context, c Check, limit time.Duration) hook.Outcome {
	switch c.Kind {
	case Broken:
		return hook.Outcome{Problem: c.Err.Error()}
	case Exec:
		return hook.Run(ctx, c.Argv, []string{"SEMPER_HEALTH_CHECK=" + c.Name}, limit)
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	output, err := h.ask(limited, c)
	o := hook.Outcome{Output: hook.Tail(output)}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		o.Problem = hook.Interrupted
	case limited.Err() != nil:
		o.Problem = hook.TookLonger(limit)
	default:
		o.Problem = err.Error()
	}
	return o
}

func (h Host) ask(ctx context.Context, c Check) (output string, err error) {
	if c.Kind == Unit {
		return h.unit(ctx, c.Unit, c.State)
	}
	ask := func(f func(context.Context) error) error {
		if f == nil {
			return fmt.Errorf("this program cannot run the builtin check %q", c.Builtin)
		}
		return f(ctx)
	}
	switch c.Builtin {
	case FailedUnits:
		return h.failedUnits(ctx)
	case Network:
		return "", h.network()
	case Agent:
		return "", ask(h.Agent)
	case Server:
		return "", ask(h.Server)
	}
	return "", fmt.Errorf("unknown builtin check %q", c.Builtin)
}

func (h Host) proc(name string) (string, error) {
	root := h.Root
	if root == "" {
		root = "/"
	}
	data, err := os.ReadFile(filepath.Join(root, "proc", name))
	return string(data), err
}
