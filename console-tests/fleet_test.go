package consoletests

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
)

// clock is a server's: it is behind the world's until the past is told.
type clock struct {
	mu     sync.Mutex
	behind time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(-c.behind)
}

// until goes on to some time before the present.
func (c *clock) until(ago time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behind = min(c.behind, ago)
}

func (c *clock) ago() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.behind
}

// How often simulated machines do something: the last hours are looked at closely.
const (
	tick     = 30 * time.Minute
	longTick = 2 * time.Hour
	closely  = 31 * time.Hour
)

// fate is what becomes of a machine that boots a version.
type fate string // why it goes back; empty: it says nothing any more

// unit is a machine with something on its way.
type unit struct {
	*box
	target string
	step   int // of the update: 0 none, 1 it downloads, 2 it reboots
	off    bool
	back   bool            // it went back from an update
	fates  map[string]fate // by version; none: it works
}

// simulated is a fleet that lives through some days before a test looks at it.
type simulated struct {
	t      *testing.T
	r      *running
	clock  *clock
	issuer string        // of the people
	past   time.Duration // a full hour
	all    []*unit
	moves  map[string]bool // channels and architectures whose machines ask for updates; the others have what there is
}

// kinds of machines, by where they are and what they are for.
var (
	sites     = []string{"fra1", "ams3", "lon2", "nyc1", "sgp1"}
	tasks     = []string{"web", "edge", "cache", "db", "ci"}
	platforms = []string{"Dell Inc. PowerEdge R650", "Amazon EC2 m7i.large", "QEMU Standard PC (Q35 + ICH9, 2009)", "Hetzner vServer"}
)

// add adds machines of a channel.
func (f *simulated) add(n int, channel, arch, version string) {
	random := rand.New(rand.NewPCG(uint64(len(f.all)), 7))
	for range n {
		i := len(f.all)
		id := fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64())
		platform := platforms[i/len(sites)%len(platforms)]
		if arch == "arm64" {
			platform = "Amazon EC2 m7g.large"
		}
		f.all = append(f.all, &unit{box: &box{
			r: f.r, id: id, alias: fmt.Sprintf("%s-%s-%02d", sites[i%len(sites)], tasks[i/len(sites)%len(tasks)], i/(len(sites)*len(tasks))+1),
			version: version, boot: 1, track: channel, arch: arch, platform: platform, first: version, address: fmt.Sprintf("10.%d.%d.%d", 20+i%len(sites), i/250, 10+i%240),
		}, fates: map[string]fate{}})
	}
}

// of are machines of a channel and an architecture.
func (f *simulated) of(channel, arch string) []*unit {
	return slices.DeleteFunc(slices.Clone(f.all), func(u *unit) bool { return u.track != channel || u.arch != arch })
}

// each does something with machines, several at a time.
func (f *simulated) each(some []*unit, do func(u *unit) error) {
	f.t.Helper()
	var wait sync.WaitGroup
	work := make(chan *unit)
	for range 12 {
		wait.Go(func() {
			for u := range work {
				if err := do(u); err != nil {
					f.t.Errorf("machine %s: %v", u.alias, err)
				}
			}
		})
	}
	for _, u := range some {
		work <- u
	}
	close(work)
	wait.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// until lets the fleet live to some time before the present.
func (f *simulated) until(ago time.Duration) {
	f.t.Helper()
	if ago >= hour {
		ago += f.past
	}
	for f.clock.ago() > ago {
		every, turns := tick, 3 // who waits for an update asks every third time
		if f.clock.ago() > closely {
			every, turns = longTick, 1
		}
		f.clock.until(max(f.clock.ago()-every, ago))
		turn := int(f.clock.ago() / tick)
		var due []*unit
		for i, u := range f.all {
			if !u.off && (u.step > 0 || f.moves[u.track+" "+u.arch] && (i+turn)%turns == 0) {
				due = append(due, u)
			}
		}
		f.each(due, (*unit).live)
		if err := f.r.s.Sweep(f.t.Context()); err != nil {
			f.t.Fatal(err)
		}
	}
}

// live is what a machine does next.
func (u *unit) live() error {
	switch u.step {
	case 0:
		a, err := u.send()
		if err != nil || a.UpdateCheck == nil || a.UpdateCheck.Manifest == nil || a.UpdateCheck.Manifest.Version == u.version {
			return err
		}
		u.target, u.step = a.UpdateCheck.Manifest.Version, 1
		_, err = u.send(omaha.DownloadStarted(u.target))
		return err
	case 1:
		u.step = 2
		_, err := u.send(omaha.DownloadFinished(u.target), omaha.Installed(u.target))
		return err
	}
	u.step = 0
	u.boot++
	switch f, bad := u.fates[u.target]; {
	case bad && f == "":
		u.off = true
		return nil
	case bad:
		u.back = true
		_, err := u.send(omaha.Failed(u.target, omaha.CodeRollback, string(f)))
		return err
	}
	was := u.version
	u.version = u.target
	_, err := u.send(omaha.Completed(was))
	return err
}
