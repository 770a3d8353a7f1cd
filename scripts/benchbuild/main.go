// Command benchbuild measures builds against mmdebstrap alone, on the same locked packages, in the same run:
//
//	mmdebstrap    the image's packages from a local repository into a tar file, with mmdebstrap's own defaults
//	cold build    every file of a release, with the packages in the cache and no finished step
//	rebuild       the same after one file of the overlay changed
//
// It prints seconds and ratios, and the size of the UKI. Run it as root on a machine with nothing else to do.
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
	cache := flag.String("cache", defaultCache(), "the cache that holds the packages")
	flag.Parse()
	if err := run(*bin, *img, *keys, *out, *cache); err != nil {
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

func run(bin, img, keys, out, cache string) error {
	ctx := context.Background()
	l, err := lock.Load(img)
	if err != nil {
		return err
	}
	steps := filepath.Join(out, "steps")
	overlay := filepath.Join(out, "overlay")
	for _, dir := range []string{steps, overlay} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(overlay, "etc"), 0o755); err != nil {
		return err
	}
	build := func(version string, extra ...string) (*image.Result, time.Duration, error) {
		args := append([]string{
			"build", img, "--version", version, "--keys", keys, "--out", out, "--cache", cache,
			"--steps", steps, "--replace", "--json",
		}, extra...)
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "semper"), args...)
		cmd.Stderr = os.Stderr
		begin := time.Now()
		b, err := cmd.Output()
		took := time.Since(begin)
		if err != nil {
			return nil, 0, fmt.Errorf("semper build: %w: %s", err, b)
		}
		var r image.Result
		return &r, took, json.Unmarshal(b, &r)
	}
	alone, err := mmdebstrap(ctx, l, cache, out)
	if err != nil {
		return err
	}
	fmt.Printf("mmdebstrap alone       %6.1f s\n", alone.Seconds())
	r, cold, err := build("1.0.0")
	if err != nil {
		return err
	}
	fmt.Printf("cold build             %6.1f s   %.2f times mmdebstrap (target: at most 1.2)\n", cold.Seconds(), cold.Seconds()/alone.Seconds())
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
	fmt.Printf("rebuild, overlay only  %6.1f s   (target: under 30)\n", warm.Seconds())
	fmt.Printf("uki.efi                %s   (target: at most 30 MB)\n", progress.Size(r.Files["uki.efi"]))
	fmt.Printf("root.erofs             %s\n", progress.Size(r.Files["root.erofs"]))
	fmt.Printf("full.crau              %s\n", progress.Size(r.Files["full.crau"]))
	return nil
}

// mmdebstrap runs it alone, as somebody would who has the same packages in a local repository.
func mmdebstrap(ctx context.Context, l *lock.Lock, cache, out string) (time.Duration, error) {
	store, err := debs.Open(filepath.Join(cache, "debs"))
	if err != nil {
		return 0, err
	}
	repository, err := filepath.Abs(filepath.Join(out, "repository"))
	if err != nil {
		return 0, err
	}
	if err := os.RemoveAll(repository); err != nil {
		return 0, err
	}
	defer os.RemoveAll(repository)
	packages := l.Group(lock.Image)
	if err := store.Repository(repository, l.Suite, l.Epoch(), packages); err != nil {
		return 0, err
	}
	var names []string
	for _, p := range packages {
		names = append(names, p.Name)
	}
	target := filepath.Join(out, "mmdebstrap.tar")
	defer os.Remove(target)
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--variant=essential", "--architectures="+l.Architecture,
		"--include="+strings.Join(names, ","), l.Suite, target, "deb [trusted=yes] copy:"+repository+" ./")
	begin := time.Now()
	said, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("mmdebstrap: %w: %s", err, said)
	}
	return time.Since(begin), nil
}
