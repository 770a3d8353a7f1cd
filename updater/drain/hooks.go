package drain

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/hook"
)

const recordFile = "drained.json"

// record is what was drained and not undrained yet.
type record struct {
	Hooks  []string  `json:"hooks"` // in the order in which they were called
	Reason string    `json:"reason"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	At     time.Time `json:"at"`
}

func (r *record) env() []string {
	return []string{"SEMPER_DRAIN_REASON=" + r.Reason, "SEMPER_VERSION_FROM=" + r.From, "SEMPER_VERSION_TO=" + r.To}
}

// hooks calls them.
type hooks struct {
	root  string
	state durable.Folder
	limit time.Duration // where the request does not say
	now   func() time.Time
	log   *slog.Logger
}

// drain calls every hook with "drain". After a failure what was called is undrained, unless alive has ended: then this program is stopped, most often by
// the reboot, and the record stays for the next Undrain. Ctx ends earlier, when whoever asked takes it back.
func (h *hooks) drain(ctx, alive context.Context, q Request) error {
	files, err := set.Find(h.root)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return nil
	}
	r, err := h.read()
	if err != nil {
		return err
	}
	r.Reason, r.From, r.To, r.At = q.Reason, q.From, q.To, h.now().UTC()
	limit := q.Limit
	if limit == 0 {
		limit = h.limit
	}
	t := budget{h.now, h.now().Add(limit), limit}
	for _, f := range files {
		if t.left() <= 0 {
			err = h.failed(f, verbDrain, hook.Outcome{Problem: "not called: " + t.over()})
			break
		}
		with := r
		if !slices.Contains(r.Hooks, f.Name) {
			with.Hooks = append(slices.Clone(r.Hooks), f.Name)
		}
		if err = durable.WriteJSON(h.state, recordFile, with); err != nil {
			break
		}
		r = with
		if err = h.call(ctx, f, verbDrain, r.env(), t); err != nil {
			break
		}
	}
	if err == nil && ctx.Err() != nil {
		err = fault.New(fault.IO, "drain: taken back")
	}
	if err == nil || alive.Err() != nil {
		return err
	}
	if back := h.undo(alive, r, files); back != nil {
		h.log.Error("after a failed drain", "error", back)
	}
	return err
}

// undrain calls what the record names with "undrain".
func (h *hooks) undrain(ctx context.Context) error {
	r, err := h.read()
	if err != nil || len(r.Hooks) == 0 {
		return err
	}
	files, err := set.Find(h.root)
	if err != nil {
		return err
	}
	return h.undo(ctx, r, files)
}

// undo calls the record's hooks with "undrain", last first, and keeps the record of those that failed. It returns the first failure.
func (h *hooks) undo(ctx context.Context, r record, files []hook.File) error {
	env := r.env()
	t := budget{h.now, h.now().Add(h.limit), h.limit}
	var first error
	var left []string
	for _, name := range slices.Backward(r.Hooks) {
		i := slices.IndexFunc(files, func(f hook.File) bool { return f.Name == name })
		if i < 0 { // the new version has it no longer, or its owner took it away
			h.log.Warn("drained by a hook that is gone", "hook", name)
			continue
		}
		if err := h.call(ctx, files[i], verbUndrain, env, t); err != nil {
			if first == nil {
				first = err
			}
			left = append(left, name)
		}
	}
	slices.Reverse(left)
	r.Hooks = left
	var err error
	if len(left) == 0 {
		err = forget(h.state)
	} else {
		err = durable.WriteJSON(h.state, recordFile, r)
	}
	if first == nil {
		first = err
	}
	return first
}

func forget(state durable.Folder) error {
	names, err := state.Names()
	if err == nil && slices.Contains(names, recordFile) {
		if err = state.Remove(recordFile); err == nil {
			err = state.Sync()
		}
	}
	if err != nil {
		return fault.New(fault.IO, "remove %s: %w", recordFile, err)
	}
	return nil
}

// read returns the record. One that is damaged means that everything may be drained.
func (h *hooks) read() (record, error) {
	var r record
	_, err := durable.ReadJSON(h.state, recordFile, &r)
	if err == nil && len(r.Hooks) <= 2*maxHooks {
		return r, nil
	}
	if err != nil && !fault.Is(err, fault.Input) {
		return record{}, err
	}
	h.log.Warn("the record of what was drained is damaged: every hook is taken for drained", "file", recordFile, "error", err)
	files, err := set.Find(h.root)
	if err != nil {
		return record{}, err
	}
	r = record{}
	for _, f := range files {
		r.Hooks = append(r.Hooks, f.Name)
	}
	return r, nil
}

// budget is the time for several hooks together.
type budget struct {
	now   func() time.Time
	end   time.Time
	whole time.Duration
}

func (t budget) left() time.Duration { return t.end.Sub(t.now()) }

func (t budget) over() string { return fmt.Sprintf("the %s for all drain hooks were over", t.whole) }

// call runs one hook.
func (h *hooks) call(ctx context.Context, f hook.File, v verb, env []string, t budget) error {
	left := t.left()
	if left <= 0 {
		return h.failed(f, v, hook.Outcome{Problem: "not called: " + t.over()})
	}
	out := hook.Run(ctx, []string{f.Path, string(v)}, env, left)
	if out.OK() {
		h.log.Info("drain hook", "hook", f.Name, "verb", v)
		return nil
	}
	if out.Problem == hook.TookLonger(left) {
		out.Problem = t.over()
	}
	return h.failed(f, v, out)
}

// failed logs a failure and returns it as a *HookError of kind Verification: somebody's policy says no.
func (h *hooks) failed(f hook.File, v verb, out hook.Outcome) error {
	text := fmt.Sprintf("%s hook %s failed: %s", v, f.Name, out.Problem)
	line := hook.LastLine(out.Output)
	if line != "" {
		text += ": " + line
	}
	h.log.Warn("drain hook", "hook", f.Name, "verb", v, "problem", out.Problem, "output", line)
	return fault.Wrap(fault.Verification, &HookError{Hook: f.Name, Text: text, Output: out.Output})
}
