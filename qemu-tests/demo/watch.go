package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/qemu-tests/console"
	"github.com/semper-os/semper/qemu-tests/guest"
	"github.com/semper-os/semper/qemu-tests/programs"
	"github.com/semper-os/semper/updater/agent"
)

const (
	machineEvery = 2 * time.Second
	serverEvery  = 500 * time.Millisecond
	// A machine that is about to reboot is gone before it can be asked; its history tells later.
	lateAfter = 15 * time.Second
)

// boot is a start of the machine as semper-init tells it on the console.
type boot struct {
	slot, version string
	at            time.Time
}

// sight is everything that was seen so far, on both sides. Its methods may be called from several goroutines.
type sight struct {
	line *timeline

	mu      sync.Mutex
	boots   []boot
	status  agent.Report  // the last one
	history []agent.Entry // the machine's own
	server  api.MachineDetail
	changed chan struct{}
}

func newSight(line *timeline) *sight { return &sight{line: line, changed: make(chan struct{})} }

// update changes what was seen and wakes who waits.
func (s *sight) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait waits until ok, which is called with the lock held.
func (s *sight) wait(ctx context.Context, ok func() bool) error {
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

var (
	rootMounted = regexp.MustCompile(`semper-init\[.*root mounted: .*slot ([AB]).*version (\S+)`)
	bootSteps   = regexp.MustCompile(`semper-init\[.*\]: (.*)`)
	bootTrouble = regexp.MustCompile(`SEMPER CANNOT START|Kernel panic|verity: .*corrupted`)
)

// watchConsole follows the machine's starts.
func (s *sight) watchConsole(ctx context.Context, log *console.Log) {
	interesting := regexp.MustCompile(rootMounted.String() + "|first boot:|" + bootTrouble.String())
	for next := 0; ; {
		line, err := log.Wait(ctx, next, interesting)
		if err != nil {
			return
		}
		// The line may still be in the middle of being printed: its end is there when another one has begun.
		if _, err := log.Wait(ctx, line.Number+1, regexp.MustCompile("")); err != nil {
			return
		}
		line = log.Matches(line.Number, interesting)[0]
		next = line.Number + 1
		text := line.Text
		if found := bootSteps.FindStringSubmatch(text); found != nil {
			text = found[1]
		}
		if found := rootMounted.FindStringSubmatch(line.Text); found != nil {
			s.update(func() { s.boots = append(s.boots, boot{slot: found[1], version: found[2], at: line.Time}) })
			s.line.add(machineW, found[1], "starts: %s", text)
			continue
		}
		s.line.add(machineW, "", "%s", text)
	}
}

// watchMachine asks the machine's agent what it does, as long as the machine answers.
func (s *sight) watchMachine(ctx context.Context, g *guest.Guest) {
	told := 0
	last := ""
	for ctx.Err() == nil {
		status, history, err := ask(ctx, g)
		if err == nil {
			s.update(func() { s.status, s.history = status, history })
			// The history survives reboots, but not for ever: it may be shorter than it was.
			for _, e := range history[min(told, len(history)):] {
				late := ""
				if since := s.line.since(e.At); time.Since(e.At) > lateAfter {
					late = fmt.Sprintf(" (at %.1f s; the machine could not be asked then)", since)
				}
				s.line.add(machineW, s.slotAt(e.At), "%s: %s%s", e.State, e.Text, late)
			}
			told = len(history)
			if now := describe(status); now != last {
				s.line.add(machineW, status.Slot, "%s", now)
				last = now
			}
		}
		sleep(ctx, machineEvery)
	}
}

// slotAt returns the slot that ran at a time.
func (s *sight) slotAt(at time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := ""
	for _, b := range s.boots {
		if b.at.Before(at) {
			slot = b.slot
		}
	}
	return slot
}

// describe says what matters of a status in a line.
func describe(r agent.Report) string {
	state := "blessed"
	if r.Trial {
		state = "on trial"
	}
	text := fmt.Sprintf("runs %s, %s", r.Version, state)
	if p := r.Progress; p != nil && p.Total > 0 {
		text += fmt.Sprintf("; %s: %d %% of %d MiB", p.Version, p.Done*100/p.Total/20*20, p.Total>>20)
	}
	return text
}

// ask returns semperctl's status and history.
func ask(ctx context.Context, g *guest.Guest) (status agent.Report, history []agent.Entry, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := g.Run(ctx, "semperctl status --json && semperctl history --json")
	if err != nil {
		return status, nil, err
	}
	d := json.NewDecoder(strings.NewReader(out))
	if err := d.Decode(&status); err != nil {
		return status, nil, err
	}
	return status, history, d.Decode(&history)
}

// watchServer asks the server what it knows of the machine.
func (s *sight) watchServer(ctx context.Context, server *programs.Server) {
	told := 0
	last := ""
	for ctx.Err() == nil {
		m, err := server.Machine(ctx, "")
		if err == nil && m.ID != "" {
			s.update(func() { s.server = m })
			if told == 0 && last == "" {
				s.line.add(serverW, "", "a machine checks in: %s, running %s, channel %s", m.ID, m.Version, m.Channel)
			}
			for _, e := range m.Events[min(told, len(m.Events)):] {
				s.line.add(serverW, "", "is told: %s", e.Sentence)
			}
			told = len(m.Events)
			now := fmt.Sprintf("machine runs %s, state %s %s", m.Version, m.State, m.Target)
			for _, f := range m.FailedVersions {
				now += "; " + f.Version + " failed on it"
			}
			if now != last {
				s.line.add(serverW, "", "%s", now)
				last = now
			}
		}
		sleep(ctx, serverEvery)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// The questions of the story's steps; they are asked with the lock held.

func (s *sight) booted(slot, version string) bool {
	return slices.ContainsFunc(s.boots, func(b boot) bool { return b.slot == slot && b.version == version })
}

// now tells whether the last start was that of a version in a slot.
func (s *sight) now(slot, version string) bool {
	last := len(s.boots) - 1
	return last >= 0 && s.boots[last].slot == slot && s.boots[last].version == version
}

// noted tells whether the machine's history has a state with a text.
func (s *sight) noted(state agent.StateName, text string) bool {
	return slices.ContainsFunc(s.history, func(e agent.Entry) bool {
		return (state == "" || e.State == state) && strings.Contains(e.Text, text)
	})
}

// told tells whether the server was told an event about a version.
func (s *sight) told(kind, result int, version string) bool {
	return slices.ContainsFunc(s.server.Events, func(e api.Event) bool {
		return e.Type == kind && e.Result == result && (version == "" || e.NextVersion == version)
	})
}

func (s *sight) failed(version string) *api.Failure {
	for i := range s.server.FailedVersions {
		if s.server.FailedVersions[i].Version == version {
			return &s.server.FailedVersions[i]
		}
	}
	return nil
}
