// Command benchserver measures semper-server over HTTP against a bare net/http handler that reads the body and answers a constant of the same size, with the same
// client and connections, in the same run:
//
//	polls        known machines that are up to date
//	grants       machines that get a release of a rollout with limits; each answer is on disk before it leaves
//	completions  machines that report the update's end; likewise
//
// for an empty table and for one with many machines. The load comes from the same machine, so what counts are ratios, and the processor time of the server alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/store/postgrestest"
)

func main() {
	bin := flag.String("bin", "bin", "folder with semper-server")
	out := flag.String("out", "out/bench-server", "where the servers' data goes; what is there is replaced")
	machines := flag.Int("machines", 1_000_000, "machines of the large table")
	seconds := flag.Float64("seconds", 5, "how long each rate is measured")
	postgres := flag.Bool("postgres", true, "measure with PostgreSQL too")
	bare := flag.String("bare", "", "internal: be the bare handler, with this address file")
	flag.Parse()
	var err error
	if *bare != "" {
		err = serveBare(*bare)
	} else {
		err = run(*bin, *out, *machines, time.Duration(*seconds*float64(time.Second)), *postgres)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchserver:", err)
		os.Exit(1)
	}
}

// answerSize is about what a machine without an update is answered.
const answerSize = 420

func serveBare(addressFile string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	answer := []byte(strings.Repeat("x", answerSize))
	if err := os.WriteFile(addressFile, []byte(l.Addr().String()), 0o600); err != nil {
		return err
	}
	s := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/xml; charset=utf-8")
		_, _ = w.Write(answer)
	})}
	return s.Serve(l)
}

// process is a server under load.
type process struct {
	cmd     *exec.Cmd
	address string
	started time.Duration
}

func start(dir string, command string, args ...string) (*process, error) {
	address := filepath.Join(dir, "address")
	if err := os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "ADDRESS", address)
	}
	p := &process{cmd: exec.Command(command, args...)}
	log, err := os.Create(filepath.Join(dir, filepath.Base(command)+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stderr = log
	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for range 6000 {
		if b, err := os.ReadFile(address); err == nil && len(b) > 0 {
			p.address, p.started = strings.TrimSpace(string(b)), time.Since(begin)
			return p, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.Join(fmt.Errorf("%s did not start, see its log in %s", command, dir), p.stop())
}

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) { // the bare handler knows no order
		return nil
	}
	return err
}

func run(bin, out string, machines int, long time.Duration, postgres bool) error {
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := start(out, self, "-bare", "ADDRESS")
	if err != nil {
		return err
	}
	base, err := load(b, long, polls(0, 1000))
	if err := errors.Join(err, b.stop()); err != nil {
		return err
	}
	fmt.Printf("bare net/http handler                        %s\n", base)
	if err := both(bin, out, "sqlite", "SQLite, WAL, each answer after a sync", machines, long, base, func() (string, error) { return "", nil }); err != nil || !postgres {
		return err
	}
	pg, err := postgrestest.Start(context.Background(), "shared_buffers=256MB", "max_wal_size=4GB")
	if err != nil {
		return err
	}
	err = both(bin, out, "postgres", "PostgreSQL, fsync=on, synchronous_commit=on", machines, long, base, func() (string, error) { return pg.Schema(context.Background()) })
	return errors.Join(err, pg.Stop())
}

// both measures a server with an empty table of machines, and one with many.
func both(bin, out, name, settings string, machines int, long time.Duration, base result, database func() (string, error)) error {
	var empty result
	for _, n := range []int{0, machines} {
		dir := filepath.Join(out, fmt.Sprintf("%s-%d", name, n))
		begin := time.Now()
		url, err := database()
		if err == nil {
			err = fill(dir, url, n)
		}
		if err != nil {
			return err
		}
		fmt.Printf("== %d machines known before (made in %.0f s); %s\n", n, time.Since(begin).Seconds(), settings)
		poll, err := measure(bin, dir, url, n, long, base)
		if err != nil {
			return err
		}
		if n == 0 {
			empty = poll
		} else {
			fmt.Printf("polls with %d machines, times those with an empty table   %.2f (target: at least 0.8)\n", n, poll.rate/empty.rate)
		}
	}
	return nil
}

// measure loads one server.
func measure(bin, dir, database string, n int, long time.Duration, base result) (poll result, err error) {
	p, err := start(dir, filepath.Join(bin, "semper-server"), "serve", "--listen", "127.0.0.1:0", "--address-file", "ADDRESS", "--data", filepath.Join(dir, "data"), "--database", database, "--rate-limit", "0")
	if err != nil {
		return poll, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	fmt.Printf("start-up %.2f s (target: under 10 s)\n", p.started.Seconds())
	target := 5000
	if database != "" {
		target = 3000
	}
	count := int(long.Seconds() * 5000)
	known := max(n, count)
	for range 2 { // known, and in memory: where there were none, the first poll makes a machine known
		if _, err := loadOnce(p, polls(0, known), min(known, 100_000)); err != nil {
			return poll, err
		}
	}
	if poll, err = load(p, long, polls(0, min(known, 100_000))); err != nil {
		return poll, err
	}
	fmt.Printf("polls of known machines, no update           %s  %.2f of bare (target: at least 0.5)\n", poll, poll.rate/base.rate)
	if err := rollOut(bin, dir, database); err != nil {
		return poll, err
	}
	grants, err := loadOnce(p, each("1.0.0", known, true, ""), count)
	if err != nil {
		return poll, err
	}
	fmt.Printf("grants under a rollout's limits, durable     %s  %.2f of bare (target: at least %d/s)\n", grants, grants.rate/base.rate, target)
	done, err := loadOnce(p, each("1.1.0", known, false, `<event eventtype="3" eventresult="2" previousversion="1.0.0"></event>`), count)
	if err != nil {
		return poll, err
	}
	fmt.Printf("completion events, durable                   %s  %.2f of bare (target: at least %d/s)\n", done, done.rate/base.rate, target)
	if err := queries(p, dir); err != nil {
		return poll, err
	}
	rss, err := resident(p.cmd.Process.Pid)
	if err != nil {
		return poll, err
	}
	fmt.Printf("resident memory                              %d MiB (target: under 1024)\n", rss>>20)
	return poll, nil
}

func rollOut(bin, dir, database string) error {
	out, err := exec.Command(filepath.Join(bin, "semper-server"), "rollout", "plan", "1.1.0", "--channel", "stable", "--at-once", "500000", "--rate", "900000/1h", "--halt", "50%", "--start",
		"--data", filepath.Join(dir, "data"), "--database", database).CombinedOutput()
	if err != nil {
		return fmt.Errorf("rollout plan: %w: %s", err, out)
	}
	return nil
}

// queries times what operators look at.
func queries(p *process, dir string) error {
	token, err := os.ReadFile(filepath.Join(dir, "data", server.TokenFile))
	if err != nil {
		return err
	}
	for _, path := range []string{
		"/api/v1/machines?limit=1000", "/api/v1/machines?limit=1000&after=m0000500000", "/api/v1/machines?version=1.1.0&limit=1000", "/api/v1/machines?text=00777&limit=1000", "/api/v1/machines?text=nobody",
		"/api/v1/machines?state=failed", "/api/v1/machines?silent_for=24h", "/api/v1/machines/m0000000007", "/api/v1/machines/m0000000007/why", "/api/v1/overview", "/api/v1/charts/versions", "/api/v1/channels",
		"/api/v1/rollouts", "/api/v1/rollouts/1", "/api/v1/rollouts/1/progress", "/api/v1/releases", "/api/v1/audit", "/metrics",
	} {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, nil)
		if err != nil {
			cancel()
			return err
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			cancel()
			return err
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		cancel()
		if err != nil || res.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: %s: %w", path, res.Status, err)
		}
		fmt.Printf("GET %-44s %4d ms, %d bytes (target: under 300 ms)\n", path, time.Since(begin).Milliseconds(), n)
	}
	return nil
}
