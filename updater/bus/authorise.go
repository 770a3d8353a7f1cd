package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/semper-os/semper/fault"
)

// Actions of polkit, described in org.semper.update1.policy.
const (
	actionCheck    = "org.semper.update1.check"
	actionUpdate   = "org.semper.update1.update"
	actionPause    = "org.semper.update1.pause"
	actionRollback = "org.semper.update1.rollback"
)

const (
	maxChanges  = 16               // calls that change something, at a time
	callLimit   = 25 * time.Second // for the agent, and for an answer in which no person has a part
	personLimit = 2 * time.Minute  // for a person to type a password
)

const (
	polkitName = "org.freedesktop.PolicyKit1"
	polkitPath = dbus.ObjectPath("/org/freedesktop/PolicyKit1/Authority")
	polkitCall = "org.freedesktop.PolicyKit1.Authority."

	errDenied      = "org.freedesktop.DBus.Error.AccessDenied"
	errInteractive = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
	errLimits      = "org.freedesktop.DBus.Error.LimitsExceeded"
	errNoService   = "org.freedesktop.DBus.Error.ServiceUnknown"
	errNoOwner     = "org.freedesktop.DBus.Error.NameHasNoOwner"
)

// gate has room for maxChanges.
type gate chan struct{}

func (g gate) enter() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) leave() { <-g }

// bounded calls f if there is room for one more call that changes something.
func (s *Service) bounded(f func() *dbus.Error) *dbus.Error {
	if !s.gate.enter() {
		return dbus.NewError(errLimits, []any{"too many calls at a time; try again later"})
	}
	defer s.gate.leave()
	return f()
}

// guarded calls f if the sender of msg may do action.
func (s *Service) guarded(ctx context.Context, c *dbus.Conn, msg dbus.Message, action string, f func() *dbus.Error) *dbus.Error {
	sender, _ := msg.Headers[dbus.FieldSender].Value().(string)
	if err := s.authorise(ctx, c, sender, action, msg.Flags&dbus.FlagAllowInteractiveAuthorization != 0); err != nil {
		s.o.Log.Warn("refused on the bus", "sender", sender, "action", action, "error", err)
		return err
	}
	return f()
}

// change has the agent do something.
func (s *Service) change(ctx context.Context, method string, f func(context.Context) error) *dbus.Error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err := f(ctx)
	s.o.Log.Info("asked on the bus", "method", method, "error", err)
	if err != nil {
		return failure(err)
	}
	return nil
}

// authorise asks polkit, or where there is none looks whether the sender is root.
func (s *Service) authorise(ctx context.Context, c *dbus.Conn, sender, action string, interactive bool) *dbus.Error {
	denied := func(format string, args ...any) *dbus.Error {
		return dbus.NewError(errDenied, []any{clean(fmt.Sprintf(format, args...))})
	}
	if !strings.HasPrefix(sender, ":") { // the bus sets it; a unique name is never given to somebody else
		return denied("the call has no sender")
	}
	yes, challenge, err := s.askPolkit(ctx, c, sender, action, interactive)
	var theirs dbus.Error
	switch {
	case errors.As(err, &theirs) && (theirs.Name == errNoService || theirs.Name == errNoOwner):
	case err != nil:
		return denied("polkit did not say whether %s is allowed: %v", action, err)
	case yes:
		return nil
	case challenge && !interactive:
		return dbus.NewError(errInteractive, []any{"polkit wants a password for " + action + ", and the call does not allow it to ask"})
	default:
		return denied("polkit does not allow %s", action)
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	var uid uint32
	if err := c.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixUser", 0, sender).Store(&uid); err != nil {
		return denied("the bus did not say who calls: %v", err)
	}
	if uid != 0 {
		return denied("there is no polkit, so only root may do that, not uid %d", uid)
	}
	return nil
}

// askPolkit has polkit's answer. challenge: it would be yes if a person proved who they are.
func (s *Service) askPolkit(ctx context.Context, c *dbus.Conn, sender, action string, interactive bool) (yes, challenge bool, err error) {
	type subject struct {
		Kind    string
		Details map[string]dbus.Variant
	}
	limit, flags := callLimit, uint32(0)
	if interactive {
		limit, flags = personLimit, 1
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	id := fmt.Sprintf("semperd-%d", s.asked.Add(1))
	authority := c.Object(polkitName, polkitPath)
	var answer struct {
		Yes, Challenge bool
		Details        map[string]string
	}
	err = authority.CallWithContext(limited, polkitCall+"CheckAuthorization", 0,
		subject{"system-bus-name", map[string]dbus.Variant{"name": dbus.MakeVariant(sender)}}, action, map[string]string{}, flags, id).Store(&answer)
	if limited.Err() != nil && ctx.Err() == nil { // nobody waits for the password any more
		authority.Go(polkitCall+"CancelCheckAuthorization", dbus.FlagNoReplyExpected, nil, id)
	}
	return answer.Yes, answer.Challenge, err
}

// failure is err for the caller: its fault kind is in the name, as in org.semper.Update1.Error.Network.
func failure(err error) *dbus.Error {
	kind := map[fault.Kind]string{
		fault.Usage: "Usage", fault.Input: "Input", fault.Network: "Network", fault.Verification: "Verification", fault.IO: "IO",
	}[fault.KindOf(err)]
	if kind == "" {
		kind = "Internal"
	}
	return dbus.NewError(semperName+".Error."+kind, []any{clean(err.Error())})
}
