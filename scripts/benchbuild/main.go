// Command benchbuild measures builds against mmdebstrap alone, on the same locked packages, in the same run:
//
//	mmdebstrap    the image's packages from a local repository into a tar file, with mmdebstrap's own defaults
//	cold build    every file of a release, with the packages in the cache (also unpacked, as they are kept there on arrival) and no finished step
//	rebuild       the same after one file of the overlay changed
//
// It prints seconds, of the clock and of processors, ratios, and the sizes of files. Run it as root on a machine with nothing else to do: mmdebstrap's own way
// waits for the disk, a build hardly does, so a disk that others use makes the ratio look better than it is. --tmpdir on a tmpfs takes the disk out of it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/semper-os/semper/builder/debs"
	"github.com/semper-os/semper/builder/image"
	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/progress"
)

func main() {
	bin := flag.String("bin", "bin", "folder with Semper's programs")
	img := flag.String("image", "images/semper", "the image's folder")
	keys := flag.String("keys", "", "the image's keys")
	out := flag.String("out", "out/bench", "where everything goes; old builds there are replaced")
	tmpdir := flag.String("tmpdir", "", "where mmdebstrap alone makes its tree; default: as it is called by anybody")
	cache := flag.String("cache", defaultCache(), "the cache that holds the packages")
	flag.Parse()
	if err := run(*bin, *img, *keys, *out, *cache, *tmpdir); err != nil {
		fmt.Fprintln(os.Stderr, "benchbuild:", err)
		os.Exit(1)
	}
}

func defaultCache() string {
	d, err := os.UserCacheDir()
	if err != nil {
		return "out/cache"
	}
	return filepath.Join(d, "semper")
}

func run(bin, img, keys, out, cache, tmpdir string) error {
	ctx := context.Background()
	l, err := lock.Load(img)
	if err != nil {
		return err
	}
	steps := filepath.Join(out, "steps")
	overlay := filepath.Join(out, "overlay")
	for _, dir := range []string{steps, overlay, filepath.Join(out, "semper-1.0.0"), filepath.Join(out, "semper-1.0.1")} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(overlay, "etc"), 0o755); err != nil {
		return err
	}
	build := func(version string, extra ...string) (*image.Result, taken, error) {
		args := append([]string{
			"build", img, "--version", version, "--keys", keys, "--out", out, "--cache", cache,
			"--steps", steps, "--replace", "--json",
		}, extra...)
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "semper"), args...)
		cmd.Stderr = os.Stderr
		begin := time.Now()
		b, err := cmd.Output()
		took := since(begin, cmd)
		if err != nil {
			return nil, taken{}, fmt.Errorf("semper build: %w: %s", err, b)
		}
		var r image.Result
		return &r, took, json.Unmarshal(b, &r)
	}
	alone, err := mmdebstrap(ctx, l, cache, out, tmpdir)
	if err != nil {
		return err
	}
	fmt.Printf("mmdebstrap alone       %6.1f s   of processors %.1f s\n", alone.clock, alone.processors)
	r, cold, err := build("1.0.0")
	if err != nil {
		return err
	}
	fmt.Printf("cold build             %6.1f s   of processors %.1f s   %.2f times mmdebstrap (target: at most 1.2)\n",
		cold.clock, cold.processors, cold.clock/alone.clock)
	for _, s := range r.Steps {
		fmt.Printf("    %-20s %6.1f s\n", s.Name, s.Seconds)
	}
	if err := os.WriteFile(filepath.Join(overlay, "etc", "changed"), []byte("changed\n"), 0o644); err != nil {
		return err
	}
	r, warm, err := build("1.0.1", "--overlay", overlay)
	if err != nil {
		return err
	}
	fmt.Printf("rebuild, overlay only  %6.1f s   (target: under 30)\n", warm.clock)
	fmt.Printf("uki.efi                %s   (target: at most 30 MB)\n", progress.Size(r.Files["uki.efi"]))
	fmt.Printf("root.erofs             %s\n", progress.Size(r.Files["root.erofs"]))
	fmt.Printf("full.crau              %s\n", progress.Size(r.Files["full.crau"]))
	return nil
}

// taken is what a command took, with all that it started, in seconds.
type taken struct{ clock, processors float64 }

// since is for a command that has ended.
func since(begin time.Time, cmd *exec.Cmd) taken {
	t := taken{clock: time.Since(begin).Seconds()}
	if s := cmd.ProcessState; s != nil {
		t.processors = (s.UserTime() + s.SystemTime()).Seconds()
	}
	return t
}

// mmdebstrap runs it alone, as somebody would who has the same packages in a local repository.
func mmdebstrap(ctx context.Context, l *lock.Lock, cache, out, tmpdir string) (taken, error) {
	store, err := debs.Open(filepath.Join(cache, "debs"))
	if err != nil {
		return taken{}, err
	}
	repository, err := filepath.Abs(filepath.Join(out, "repository"))
	if err != nil {
		return taken{}, err
	}
	if err := os.RemoveAll(repository); err != nil {
		return taken{}, err
	}
	defer os.RemoveAll(repository)
	packages := l.Group(lock.Image)
	if err := store.Repository(repository, l.Suite, l.Epoch(), packages); err != nil {
		return taken{}, err
	}
	var names []string
	for _, p := range packages {
		names = append(names, p.Name)
	}
	target := filepath.Join(out, "mmdebstrap.tar")
	defer os.Remove(target)
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--variant=essential", "--architectures="+l.Architecture,
		"--include="+strings.Join(names, ","), l.Suite, target, "deb [trusted=yes] copy:"+repository+" ./")
	if tmpdir != "" {
		cmd.Env = append(os.Environ(), "TMPDIR="+tmpdir)
	}
	begin := time.Now()
	said, err := cmd.CombinedOutput()
	took := since(begin, cmd)
	if err != nil {
		return taken{}, fmt.Errorf("mmdebstrap: %w: %s", err, said)
	}
	return took, nil
}
