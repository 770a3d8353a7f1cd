package install_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

// hooks records what the surroundings were asked for.
type hooks struct {
	calls []string
	fail  error
	clash func() // runs inside of a drain
}

func (h *hooks) tune(o *install.Options) {
	o.Drain = func(_ context.Context, from, to string) error {
		h.calls = append(h.calls, "drain "+from+" "+to)
		if h.clash != nil {
			h.clash()
		}
		return h.fail
	}
	o.Undrain = func(context.Context) error { h.calls = append(h.calls, "undrain"); return h.fail }
	o.Warn = func(_ context.Context, text string, ttys []string) error {
		h.calls = append(h.calls, "warn "+text+" "+strings.Join(ttys, ","))
		return h.fail
	}
}

func TestDrainBeforeReboot(t *testing.T) {
	keys := installtest.NewKeys(t)
	ctx := t.Context()
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	var hk hooks
	m.Tune = hk.tune
	core := m.Core()
	h := core.Handler(agentUID)
	warning := wire.Warn{Text: "soon", TTYs: []string{"pts/0"}}
	for name, err := range map[string]error{"drain": h.Drain(ctx, "x"), "warn": h.Warn(ctx, warning), "reboot": reboot(h)} {
		if err == nil || !strings.Contains(err.Error(), "no update waits") {
			t.Errorf("%s without an update: %v", name, err)
		}
	}
	equal(t, "calls", hk.calls, nil)
	must(t, second(push(core, keys.Release(t, "1.1.0"))))

	refused := func(what string) {
		t.Helper()
		if err := reboot(h); err == nil || !strings.Contains(err.Error(), "was not drained") || m.Reboots != 0 {
			t.Fatalf("%s: reboot: %v, %d reboots", what, err, m.Reboots)
		}
	}
	refused("never drained")
	hk.fail = errors.New("the cluster does not answer")
	if err := h.Drain(ctx, "update"); err == nil || !strings.Contains(err.Error(), "the cluster does not answer") {
		t.Errorf("drain: %v", err)
	}
	refused("failing drain")
	hk.fail = nil
	must(t, h.Drain(ctx, "update"))
	if d := status(t, core).Drained; d == nil || !d.Equal(m.Now) {
		t.Errorf("drained %v", d)
	}
	m.Now = m.Now.Add(10*time.Minute + time.Second)
	refused("too long ago")
	must(t, h.Drain(ctx, "update"))
	m.Now = m.Now.Add(-time.Second)
	refused("clock set back")
	must(t, h.Drain(ctx, "update"))
	must(t, h.Undrain(ctx))
	must(t, h.Undrain(ctx)) // nothing to undo any more
	if d := status(t, core).Drained; d != nil {
		t.Errorf("drained %v", d)
	}
	refused("undrained")
	must(t, h.Drain(ctx, "update"))
	hk.fail = errors.New("no")
	if err := h.Undrain(ctx); err == nil {
		t.Error("undrain: no error")
	}
	refused("undrained in part")
	hk.fail = nil
	must(t, h.Undrain(ctx))
	hk.clash = func() {
		for name, err := range map[string]error{"drain": core.Handler(agentUID).Drain(ctx, "x"), "undrain": core.Handler(agentUID).Undrain(ctx)} {
			if err == nil || !strings.Contains(err.Error(), "already") {
				t.Errorf("%s meanwhile: %v", name, err)
			}
		}
	}
	must(t, h.Drain(ctx, "update"))
	must(t, h.Warn(ctx, warning))
	must(t, reboot(h))
	equal(t, "reboots", m.Reboots, 1)
	d := "drain 1.0.0 1.1.0"
	want := []string{d, d, d, d, "undrain", d, "undrain", "undrain", d, "warn soon pts/0"}
	if !reflect.DeepEqual(hk.calls, want) {
		t.Errorf("calls %q\nwant  %q", hk.calls, want)
	}
	// A process that was started since does not know of the drain, and asks for another; it does not know that nothing is to undo, either.
	next := m.Core().Handler(agentUID)
	if err := reboot(next); err == nil {
		t.Error("rebooted without a drain")
	}
	must(t, next.Undrain(ctx))
	equal(t, "last call", hk.calls[len(hk.calls)-1], "undrain")
}

func TestNothingToDrain(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	core := m.Core()
	must(t, second(push(core, keys.Release(t, "1.1.0"))))
	h := core.Handler(agentUID)
	must(t, h.Drain(t.Context(), "update"))
	must(t, h.Undrain(t.Context()))
	must(t, h.Warn(t.Context(), wire.Warn{Text: "x", TTYs: []string{"tty1"}}))
	must(t, reboot(h))
	equal(t, "reboots", m.Reboots, 1)
}

func TestWarningsAreBounded(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	var hk hooks
	m.Tune = hk.tune
	core := m.Core()
	must(t, second(push(core, keys.Release(t, "1.1.0"))))
	h := core.Handler(agentUID)
	w := wire.Warn{Text: "x", TTYs: []string{"tty1"}}
	for range 60 {
		must(t, h.Warn(t.Context(), w))
	}
	if err := h.Warn(t.Context(), w); err == nil || len(hk.calls) != 60 {
		t.Errorf("one more: %v, %d calls", err, len(hk.calls))
	}
	m.Now = m.Now.Add(time.Hour)
	must(t, h.Warn(t.Context(), w))
}

func TestMarker(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	var got []string
	m.Tune = func(o *install.Options) {
		o.Marker = func(pending bool, version string) {
			if pending {
				version = "+" + version
			}
			got = append(got, version)
		}
	}
	core := m.Core()
	status(t, core)
	status(t, core)
	must(t, second(push(core, keys.Release(t, "1.1.0"))))
	status(t, core)
	must(t, second(push(core, keys.Release(t, "1.2.0"))))
	must(t, m.ESP.Remove("semper_1.2.0+3-0.efi"))
	status(t, core)
	must(t, second(push(core, keys.Release(t, "1.3.0"))))
	m.Boot(t)
	core = m.Core()
	status(t, core)
	must(t, core.Bless())
	must(t, core.Handler(0).Rollback(asked))
	equal(t, "told", got, []string{"", "+1.1.0", "", "+1.2.0", "", "+1.3.0", "", "+1.0.0"})
}
