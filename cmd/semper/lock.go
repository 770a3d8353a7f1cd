package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/builder/debs"
	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/builder/recipe"
	"github.com/semper-os/semper/builder/tools"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/progress"
)

// mirrorFlags are the flags of every verb that needs the Debian archive.
type mirrorFlags struct {
	sources lock.Sources
}

func (f *mirrorFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.sources.Mirror, "mirror", "", "the Debian archive's URL: http, https, file or copy (SEMPER_MIRROR; default: the host's apt sources)")
	flags.StringVar(&f.sources.SecurityMirror, "security-mirror", "", "the Debian security archive's URL (SEMPER_SECURITY_MIRROR; default: the host's apt sources)")
	flags.StringVar(&f.sources.AptSources, "apt-sources", "", "read the archives' URLs from this apt sources file or folder instead of /etc/apt")
}

// withEnvironment returns what the flags say, and what the environment says where they say nothing.
func (f *mirrorFlags) withEnvironment() lock.Sources {
	s := f.sources
	s.Mirror = cmp.Or(s.Mirror, os.Getenv("SEMPER_MIRROR"))
	s.SecurityMirror = cmp.Or(s.SecurityMirror, os.Getenv("SEMPER_SECURITY_MIRROR"))
	return s
}

func (f *mirrorFlags) find(ctx context.Context) (lock.Mirrors, error) {
	return lock.FindMirrors(ctx, f.withEnvironment())
}

func newLockCommand() *cobra.Command {
	var (
		mirror  mirrorFlags
		options lock.Options
		check   bool
	)
	c := &cobra.Command{
		Use:   "lock IMAGE",
		Short: "Resolve an image's recipe to exact packages: packages.lock",
		Long: "Asks apt which packages the recipe in the folder IMAGE stands for today, and writes them with version, size and SHA-256 to IMAGE/packages.lock.\n" +
			"Apt runs with a configuration of its own: nothing of the host's packages, hooks or pins has a say; only its mirrors are used. No root is needed.\n" +
			"A lock whose packages would stay the same is left as it is, date included.",
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := c.Flags().GetBool("json")
			if err != nil {
				return err
			}
			r, err := recipe.Load(args[0])
			if err != nil {
				return err
			}
			if check {
				return checkLock(c.OutOrStdout(), r, asJSON)
			}
			old, err := oldLock(r)
			if err != nil {
				return err
			}
			l, err := resolveLock(c.Context(), r, &mirror, options)
			if err != nil {
				return err
			}
			return finishLock(c.OutOrStdout(), r, old, l, asJSON)
		},
	}
	mirror.register(c)
	flags := c.Flags()
	flags.BoolVar(&check, "check", false, "only say whether the lock there is still matches the recipe; needs no network")
	flags.StringVar(&options.Keyring, "keyring", "", "file of the keys that sign the archives (default: Debian's)")
	flags.BoolVar(&options.AllowExpired, "allow-expired", false, "accept indexes whose validity has ended, as archives of old releases have them")
	return c
}

func resolveLock(ctx context.Context, r *recipe.Recipe, mirror *mirrorFlags, options lock.Options) (*lock.Lock, error) {
	needs := tools.ForLock
	if options.Keyring != "" {
		needs = tools.WithoutKeyring(needs)
	}
	if err := tools.CheckHost(needs); err != nil {
		return nil, err
	}
	m, err := mirror.find(ctx)
	if err != nil {
		return nil, err
	}
	return lock.Resolve(ctx, r, m, options)
}

// oldLock is the lock that is about to be replaced. One that does not exist or cannot be read is nil: a new lock is the cure for both.
func oldLock(r *recipe.Recipe) (*lock.Lock, error) {
	l, err := lock.Load(r.Dir())
	if fault.Is(err, fault.Input) {
		return nil, nil
	}
	return l, err
}

// lockReport is what "semper lock" says, for people and as JSON.
type lockReport struct {
	Path     string        `json:"path"`
	Changed  bool          `json:"changed"` // whether the file was written
	Packages int           `json:"packages"`
	Bytes    int64         `json:"bytes"` // of all packages together
	Changes  []lock.Change `json:"changes"`
}

func newLockReport(r *recipe.Recipe, l *lock.Lock) lockReport {
	return lockReport{
		Path:     filepath.Join(r.Dir(), lock.FileName),
		Packages: len(l.Packages),
		Bytes:    debs.Total(l.Packages),
		Changes:  []lock.Change{},
	}
}

func checkLock(w io.Writer, r *recipe.Recipe, asJSON bool) error {
	l, err := lock.Load(r.Dir())
	if err != nil {
		return err
	}
	if err := l.Check(r); err != nil {
		return err
	}
	return newLockReport(r, l).print(w, "matches its recipe", asJSON)
}

func finishLock(w io.Writer, r *recipe.Recipe, old, l *lock.Lock, asJSON bool) error {
	report, state := newLockReport(r, l), "up to date"
	if old == nil || !old.Same(l) {
		if err := l.Save(r.Dir()); err != nil {
			return err
		}
		report.Changed, state = true, "written"
		if old != nil {
			report.Changes = append(report.Changes, l.Changes(old)...)
		}
	}
	return report.print(w, state, asJSON)
}

func (p lockReport) print(w io.Writer, state string, asJSON bool) error {
	if asJSON {
		return fault.Wrap(fault.IO, json.NewEncoder(w).Encode(p))
	}
	var errs []error
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format, args...)
		errs = append(errs, err)
	}
	for _, c := range p.Changes {
		switch {
		case c.From == "":
			say("+ %s %s\n", c.Name, c.To)
		case c.To == "":
			say("- %s %s\n", c.Name, c.From)
		default:
			say("~ %s %s -> %s\n", c.Name, c.From, c.To)
		}
	}
	say("%s: %d packages, %s, %s\n", p.Path, p.Packages, progress.Size(p.Bytes), state)
	return fault.Wrap(fault.IO, errors.Join(errs...))
}
