// Package image is the pipeline that turns a recipe and its lock into a release:
//
//	packages ─┬─ tree (mmdebstrap) ──────────────┐
//	          ├─ tools ─┬─ kernel and modules ───┼─ root ── erofs ── dm-verity ── root hash ─┬─ UKI ──┬─ disk.raw
//	          │         └─ systemd-boot, stub ───┼───────────────────────────────────────────┤        └─ full.crau
//	          └─ kernel ── initrd ───────────────┘                                           └─ signature
//
// What is slow and depends on the lock alone (tree, kernel, tools) is kept in the cache under the digest of all that it
// depends on; the rest is made anew by every build. Everything is written into a directory that becomes the release when it
// is complete. The same recipe, lock, overlays, programs, public keys and version give the same bytes, signatures included.
package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/semper-os/semper/builder/debs"
	"github.com/semper-os/semper/builder/kernel"
	"github.com/semper-os/semper/builder/keys"
	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/builder/recipe"
	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/builder/rootfs"
	"github.com/semper-os/semper/builder/seed"
	"github.com/semper-os/semper/builder/tools"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/progress"
)

// Options say what to build.
type Options struct {
	Image    string       // the image's folder: recipe.toml, packages.lock, tree/
	Version  string       // "1.2.0"
	Keys     string       // folder of the keys, see package keys
	Out      string       // where the release directory appears
	Cache    string       // packages and finished steps; may be shared by builds
	Steps    string       // finished steps and compressed chunks, when they are not to be shared; default: below Cache
	Programs string       // folder with Semper's programs for the image
	Overlays []string     // more folders laid over the root, after the image's own tree/
	Mirrors  lock.Sources // where packages come from
	Replace  bool         // replace a release of this version that is there already

	Terminal *os.File         // where progress bars go when it is a terminal
	Clock    func() time.Time // for the durations in Result alone
}

// Step is what one step of a build took.
type Step struct {
	Name    string  `json:"name"`
	Cached  bool    `json:"cached"`
	Seconds float64 `json:"seconds"`
}

// Result describes a release that was built.
type Result struct {
	Release  string           `json:"release"`
	Version  string           `json:"version"`
	RootHash string           `json:"root_hash"`
	Files    map[string]int64 `json:"files"` // size in bytes by name
	Steps    []Step           `json:"steps"`
}

// build is one run of the pipeline.
type build struct {
	Options
	recipe   *recipe.Recipe
	lock     *lock.Lock
	keys     *keys.Keys
	programs map[string]program
	seed     seed.Seed
	epoch    time.Time
	cache    cache
	store    *debs.Store
	tools    *tools.Tree

	mu     sync.Mutex // guards result.Steps: steps run side by side
	result Result
}

// Build makes a release. Whatever is wrong with the input is found before any work begins; a build that fails or is
// interrupted leaves no release behind.
func Build(ctx context.Context, o Options) (*Result, error) {
	b := &build{Options: o, cache: cache{dir: cmp.Or(o.Steps, filepath.Join(o.Cache, "steps"))}}
	if err := b.check(); err != nil {
		return nil, err
	}
	if err := b.fetch(ctx); err != nil {
		return nil, err
	}
	made, err := b.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.assemble(ctx, made); err != nil {
		return nil, err
	}
	return &b.result, nil
}

// Download brings the locked packages of an image into the cache and builds nothing. Of the options only Image, Cache,
// Mirrors, Terminal and Clock count. It returns how many packages there are, and their size in bytes.
func Download(ctx context.Context, o Options) (packages int, size int64, err error) {
	b := &build{Options: o}
	if err := b.readImage(); err != nil {
		return 0, 0, err
	}
	return len(b.lock.Packages), debs.Total(b.lock.Packages), b.fetch(ctx)
}

// readImage reads the recipe and the lock that belongs to it.
func (b *build) readImage() (err error) {
	if b.recipe, err = recipe.Load(b.Image); err != nil {
		return err
	}
	if b.lock, err = lock.Load(b.recipe.Dir()); err != nil {
		return err
	}
	return b.lock.Check(b.recipe)
}

// check reads all input and refuses what is wrong with it.
func (b *build) check() (err error) {
	if err := release.CheckVersion(b.Version); err != nil {
		return fault.Wrap(fault.Usage, fmt.Errorf("--version: %w", err))
	}
	if err := tools.CheckHost(tools.ForBuild); err != nil {
		return err
	}
	if err := b.readImage(); err != nil {
		return err
	}
	if err := release.CheckName(b.recipe.Name); err != nil {
		return fmt.Errorf("%s: %w", b.recipe.Where("name"), err)
	}
	if b.keys, err = keys.Load(b.Keys); err != nil {
		return err
	}
	if b.programs, err = findPrograms(b.Programs, b.recipe.Arch); err != nil {
		return err
	}
	for _, dir := range b.Overlays {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return fault.New(fault.Input, "--overlay %s: not a folder", dir)
		}
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.Input, "building needs root: mmdebstrap runs Debian's maintainer scripts in a chroot")
	}
	if err := b.checkMinVersion(); err != nil {
		return err
	}
	b.epoch = b.lock.Epoch()
	digest := b.lock.Digest()
	b.seed = seed.New([]byte(b.recipe.Name), digest[:], []byte(b.Version))
	if !b.Replace {
		if err := release.CheckPlace(b.Out, b.manifest(), b.keys.PayloadSigners()); err != nil {
			return err
		}
	}
	need := roomFactor * debs.Total(b.lock.Packages)
	return checkRoom([]place{{"--out", b.Out, need}, {"--cache", b.Cache, need}}, statRoom)
}

// manifest is what is known of the release's manifest before the build.
func (b *build) manifest() release.Manifest {
	packages := sha256.Sum256(b.lock.Encode())
	return release.Manifest{
		Name: b.recipe.Name, Version: b.Version, Epoch: uint64(b.recipe.Epoch), Architecture: b.recipe.Arch.Debian,
		PackagesSHA256: hex.EncodeToString(packages[:]), SourceDateEpoch: b.epoch.Unix(), MinVersion: b.recipe.MinVersion,
	}
}

// checkMinVersion refuses an oldest version that is newer than the release.
func (b *build) checkMinVersion() error {
	if least := b.recipe.MinVersion; least != "" && bootentry.Compare(least, b.Version) > 0 {
		return fault.New(fault.Input, "%s: min-version %s is newer than the release, %s", b.recipe.Where("min-version"), least, b.Version)
	}
	return nil
}

// payloadImage is what the payload says that it is.
func (b *build) payloadImage() payload.Image {
	return payload.Image{
		ID: b.recipe.Name, Version: b.Version, Epoch: uint64(b.recipe.Epoch), MinVersion: b.recipe.MinVersion, Architecture: b.recipe.Arch.Debian,
	}
}

// fetch brings the packages and the tools to this machine.
func (b *build) fetch(ctx context.Context) (err error) {
	defer b.step("packages", nil)()
	if b.store, err = debs.Open(filepath.Join(b.Cache, "debs")); err != nil {
		return err
	}
	mirrors, err := lock.FindMirrors(ctx, b.Mirrors)
	if err != nil {
		return err
	}
	bar := progress.New(b.Terminal, "packages", debs.Total(b.lock.Packages))
	err = b.store.Fill(ctx, b.lock.Packages, debs.NewFetcher(mirrors), bar)
	bar.Done()
	if err != nil {
		return err
	}
	b.tools, err = tools.Unpack(ctx, b.Cache, b.store, b.lock)
	return err
}

// base is what the root is made of and booted with.
type base struct {
	tree   string // tar file
	kernel *kernel.Result
	initrd []byte // archive
}

// prepare makes the tree, which keeps about one core busy, and beside it the kernel and its initramfs.
func (b *build) prepare(ctx context.Context) (*base, error) {
	var made base
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		made.tree, err = b.bootstrap(ctx)
		return err
	})
	group.Go(func() (err error) {
		if made.kernel, err = b.unpackKernel(ctx); err != nil {
			return err
		}
		made.initrd, err = b.initrd(made.kernel)
		return err
	})
	return &made, group.Wait()
}

// unpackKernel returns the locked kernel with the modules that the recipe wants.
func (b *build) unpackKernel(ctx context.Context) (*kernel.Result, error) {
	deb := b.lock.Group(lock.Kernel)[0] // the lock has exactly one
	k := b.recipe.Kernel
	parts := append([]string{deb.SHA256, b.tools.Digest(), string(k.Modules)}, k.ExcludeModules...)
	var cached bool
	defer b.step("kernel and modules", &cached)()
	var dir string
	var err error
	dir, cached, err = b.cache.step("kernel", key(parts...), func(dir string) error {
		_, err := kernel.Unpack(ctx, kernel.Options{
			Deb: b.store.Deb(deb), Out: dir, Tools: b.tools, Plain: k.Modules == recipe.ModulesPlain,
			Exclude: func(name string) bool {
				return slices.ContainsFunc(k.ExcludeModules, func(glob string) bool { return recipe.MatchModule(glob, name) })
			},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return kernel.Open(dir)
}

// bootstrap returns the tar file that mmdebstrap made of the locked packages.
func (b *build) bootstrap(ctx context.Context) (string, error) {
	packages := b.lock.Group(lock.Image)
	parts := make([]string, 0, len(packages)+1)
	names := make([]string, 0, len(packages))
	for _, p := range packages {
		parts = append(parts, p.SHA256)
		names = append(names, p.Name)
	}
	run := rootfs.Bootstrap{
		Suite: b.lock.Suite, Architecture: b.lock.Architecture, Packages: names, Epoch: b.epoch,
		// Debian's packages unpack to four times their size; the packages themselves are copied in too, unpacked already.
		Unpacked: 9*debs.Total(packages) + 512<<20,
	}
	parts = append(parts, run.Identity())
	var cached bool
	defer b.step("tree (mmdebstrap)", &cached)()
	var dir string
	var err error
	dir, cached, err = b.cache.step("tree", key(parts...), func(dir string) error {
		run.Repository = filepath.Join(dir, "repository")
		if err := b.store.Repository(run.Repository, b.lock.Suite, b.epoch, packages); err != nil {
			return err
		}
		defer os.RemoveAll(run.Repository)
		log, err := os.Create(filepath.Join(dir, "mmdebstrap.log"))
		if err != nil {
			return fault.Wrap(fault.IO, err)
		}
		defer log.Close()
		run.Log = log
		return run.Run(ctx, filepath.Join(dir, "tree.tar"))
	})
	return filepath.Join(dir, "tree.tar"), err
}

// step notes how long the step name takes; the function it returns ends it.
func (b *build) step(name string, cached *bool) func() {
	start := b.Clock()
	return func() {
		s := Step{Name: name, Cached: cached != nil && *cached, Seconds: b.Clock().Sub(start).Seconds()}
		b.mu.Lock()
		b.result.Steps = append(b.result.Steps, s)
		b.mu.Unlock()
		slog.Debug("step done", "step", s.Name, "cached", s.Cached, "seconds", s.Seconds)
	}
}
