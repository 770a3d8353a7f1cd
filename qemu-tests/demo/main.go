// Command demo shows the whole of Semper at work, on this machine, with the real programs and real images:
//
//	build 1.0.0, 1.1.0 and 1.2.0 ─▶ serve 1.1.0 ─▶ boot 1.0.0 ─▶ it updates itself to 1.1.0
//	                                 serve 1.2.0, whose health check fails ─▶ the machine tries it, and goes back to 1.1.0 by itself
//
// It watches the machine (its console, and semperctl over SSH) and the server (its REST interface), prints what happens as it happens, and exits with 0
// only if each step was seen on the machine and at the server.
//
// Everything it makes stays in the folder --out: the releases and their keys, server/ with the server's data and log, machine/ with the machine's disk and
// console, build.log and timeline.txt.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/semper-os/semper/qemu-tests/programs"
)

func main() {
	os.Exit(run())
}

func run() int {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder with Semper's programs")
	flag.StringVar(&o.images, "images", "images", "folder with the image definitions")
	flag.StringVar(&o.out, "out", "out/demo", "folder for releases, disk and logs")
	flag.StringVar(&o.overlay, "bad-health", "qemu-tests/demo/bad-health", "folder laid over version 1.2.0's root")
	flag.DurationVar(&o.patience, "patience", 10*time.Minute, "how long to wait for each step")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: unexpected argument %q\n", flag.Arg(0))
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		return 1
	}
	return 0
}

type options struct {
	bin, images, out, overlay string
	patience                  time.Duration
}

func demo(ctx context.Context, o options) (err error) {
	if o.out, err = filepath.Abs(o.out); err != nil {
		return err
	}
	p := programs.Folder(o.bin)
	if err := p.Check("semper", "semper-server", "semperd", "semper-installd", "semperctl", "semper-init"); err != nil {
		return err
	}
	// What an earlier demo left: its machine and server know how the story ends.
	for _, dir := range []string{"server", "machine"} {
		if err := os.RemoveAll(filepath.Join(o.out, dir)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(o.out, "timeline.txt"))
	if err != nil {
		return err
	}
	line := newTimeline(os.Stdout, file)
	defer func() { err = errors.Join(err, file.Close()) }()

	releases, err := build(ctx, o, line)
	if err != nil {
		return err
	}
	s := &story{o: o, programs: p, line: line, releases: releases}
	defer s.end()
	if err := s.tell(ctx); err != nil {
		return fmt.Errorf("%w\nLogs: %s", err, o.logs())
	}
	s.summary()
	return nil
}

func (o options) logs() string {
	return fmt.Sprintf("%[1]s/machine/console.log, %[1]s/server/server.log, %[1]s/timeline.txt", o.out)
}
