package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/semper-os/semper/builder/image"
	"github.com/semper-os/semper/progress"
)

// The versions of the story.
const (
	oldVersion  = "1.0.0" // what the machine starts with
	newVersion  = "1.1.0" // what it updates itself to
	sickVersion = "1.2.0" // what it tries, and goes back from
)

// built is a release with the time that it took.
type built struct {
	*image.Result
	took time.Duration
}

// build makes the three releases with "semper build", or finds that they are there.
func build(ctx context.Context, o options, line *timeline) (map[string]built, error) {
	line.heading("Build")
	log, err := os.Create(filepath.Join(o.out, "build.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	keys := filepath.Join(o.out, "keys")
	if _, err := os.Stat(keys); errors.Is(err, os.ErrNotExist) {
		if _, err := semper(ctx, o, log, "keys", "new", "--out", keys); err != nil {
			return nil, err
		}
		line.add(builder, "", "keys for Secure Boot, root hash and payloads: %s", keys)
	}
	releases := map[string]built{}
	for _, version := range []string{oldVersion, newVersion, sickVersion} {
		args := []string{"build", filepath.Join(o.images, "semper"), "--version", version, "--keys", keys, "--out", o.out, "--replace", "--json"}
		note := ""
		if version == sickVersion {
			args = append(args, "--overlay", o.overlay)
			note = ", with a health check that fails"
		}
		begin := time.Now()
		out, err := semper(ctx, o, log, args...)
		if err != nil {
			return nil, err
		}
		var r image.Result
		if err := json.Unmarshal(out, &r); err != nil {
			return nil, fmt.Errorf("semper build said %q: %w", out, err)
		}
		releases[version] = built{&r, time.Since(begin)}
		var fresh []string
		for _, s := range r.Steps {
			if !s.Cached && s.Seconds >= 1 {
				fresh = append(fresh, fmt.Sprintf("%s %.0f s", s.Name, s.Seconds))
			}
		}
		line.add(builder, "", "Semper OS %s%s, in %.0f s (%s)", version, note, time.Since(begin).Seconds(), strings.Join(fresh, ", "))
	}
	return releases, nil
}

// semper runs the program with its progress bars on our terminal, and returns its standard output.
func semper(ctx context.Context, o options, log *os.File, args ...string) ([]byte, error) {
	fmt.Fprintf(log, "$ semper %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, filepath.Join(o.bin, "semper"), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err := cmd.Run()
	if _, werr := log.Write(out.Bytes()); werr != nil {
		return nil, werr
	}
	if err != nil {
		return nil, fmt.Errorf("semper %s: %w %s", args[0], err, bytes.TrimSpace(out.Bytes()))
	}
	return out.Bytes(), nil
}

// size returns that of a release's file for people.
func (b built) size(name string) string { return progress.Size(b.Files[name]) }
