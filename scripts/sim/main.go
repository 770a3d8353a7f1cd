// Command sim lets a simulated fleet ask the real server on virtual time: its handler, its database, its sweeps. A machine that is given a release updates, and then is
// healthy, comes back with a failure, or is never heard of again; its polls come sooner or later than they should, as those of machines with bad clocks do. What must hold is
// checked in each virtual minute, and a picture of each rollout is written as SVG.
//
//	well      nobody fails: a canary phase, then a ramp over a day; limits and the ramp are never exceeded, and everybody has the release in the end
//	failing   3 % of the machines fail: the rollout halts itself with less than 0.5 % of the fleet touched
//	canary    the release is bad for all: it halts with nobody but canaries touched
//	silent    3 % of the machines are not heard of again: it halts
//	http      well, smaller, over HTTP on loopback
//
// A machine whose place the ramp has not reached is asked about now and then only; the others would be told the same.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/semper-os/semper/omaha/server/rollout"
)

func main() {
	out := flag.String("out", "out/sim", "where pictures go")
	machines := flag.Int("machines", 1_000_000, "machines of the fleet")
	small := flag.Int("http-machines", 10_000, "machines of the run over HTTP")
	dir := flag.String("tmpdir", "/dev/shm", "where the servers' data goes: on virtual time no disk is to be waited for")
	only := flag.String("only", "", "one scenario")
	flag.Parse()
	if err := run(*out, *dir, *only, *machines, *small); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func hours(n float64) rollout.Duration { return rollout.Duration(n * float64(time.Hour)) }

func run(out, dir, only string, machines, small int) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	halt := rollout.Limit{Percent: 2, Sample: 100, SilentAfter: hours(2)}
	canary := rollout.CanaryPlan{Group: "lab", Healthy: hours(1), Failures: 5}
	plan := rollout.Plan{Canary: canary, Ramp: rollout.Ramp{Over: hours(24)}, Limits: rollout.Limits{AtOnce: int64(max(machines/20, 50))}, Halt: halt}
	cautious := plan
	cautious.Limits.AtOnce = int64(max(machines/500, 50))
	httpPlan := plan
	httpPlan.Limits.AtOnce = int64(max(small/20, 50))
	// Of a small fleet the sample that is judged is a larger share.
	few := func(share float64) float64 { return max(share, 5*float64(halt.Sample)/float64(machines)) }
	strict := plan
	strict.Canary.Failures = 1
	for _, s := range []scenario{
		{name: "well", machines: machines, plan: plan},
		{name: "failing", machines: machines, plan: cautious, fails: 0.03, halts: true, touched: few(0.005)},
		{name: "canary", machines: machines, plan: strict, fails: 1, halts: true, touched: 20.0 / float64(machines)},
		{name: "silent", machines: machines, plan: cautious, silent: 0.03, halts: true, touched: few(0.08)}, // what is silent is known two hours later than what is well
		{name: "http", machines: small, plan: httpPlan, http: true},
	} {
		if only != "" && s.name != only {
			continue
		}
		begin := time.Now()
		w, err := newWorld(dir, &s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		err = w.play()
		if stopErr := w.close(); err == nil {
			err = stopErr
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		path := filepath.Join(out, s.name+".svg")
		if err := os.WriteFile(path, w.picture(), 0o644); err != nil {
			return err
		}
		fmt.Printf("%-8s ok: %s; %d requests in %.0f s; %s\n", s.name, w.verdict, w.requests.Load(), time.Since(begin).Seconds(), path)
	}
	return nil
}
