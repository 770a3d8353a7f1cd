package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/builder/image"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/progress"
)

func newBuildCommand() *cobra.Command {
	var (
		o      image.Options
		mirror mirrorFlags
		again  bool
		only   bool
	)
	c := &cobra.Command{
		Use:   "build IMAGE --version VERSION --keys DIR",
		Short: "Build a signed release from a recipe and its lock",
		Long: "Builds the image in the folder IMAGE (recipe.toml, packages.lock, tree/) into the release directory OUT/NAME-VERSION: disk image, update payload,\n" +
			"unified kernel image, root file system with its dm-verity tree and signature, bill of materials, and a signed list of it all.\n" +
			"Only packages that the lock names are used, from the cache or the mirror. What depends on the lock alone is cached. Needs root, for mmdebstrap.",
		Example: "  semper build images/semper --version 1.0.0 --keys keys --out out",
		Args:    exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			asJSON, err := c.Flags().GetBool("json")
			if err != nil {
				return err
			}
			o.Image, o.Mirrors = args[0], mirror.withEnvironment()
			o.Terminal, o.Clock = os.Stderr, time.Now
			if only {
				return download(c, o, asJSON)
			}
			for _, f := range []struct{ name, value string }{{"version", o.Version}, {"keys", o.Keys}} {
				if f.value == "" {
					return fault.New(fault.Usage, "%s: --%s is missing (see '%s --help')", c.CommandPath(), f.name, c.CommandPath())
				}
			}
			result, err := image.Build(c.Context(), o)
			if err != nil {
				return err
			}
			if again {
				if err := image.CheckReproducible(c.Context(), o, result.Release); err != nil {
					return err
				}
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(result)
			}
			printBuild(c, result, again)
			return nil
		},
	}
	mirror.register(c)
	flags := c.Flags()
	flags.StringVar(&o.Version, "version", "", "the release's version, as in 1.2.0")
	flags.StringVar(&o.Keys, "keys", "", "folder of the image's keys ('semper keys new' makes one)")
	flags.StringVar(&o.Out, "out", "out", "where the release directory appears")
	flags.StringVar(&o.Cache, "cache", defaultCache(), "downloaded packages and finished steps")
	flags.StringVar(&o.Steps, "steps", "", "finished steps, when they are not to be shared (default: below --cache)")
	flags.StringVar(&o.Programs, "programs", defaultPrograms(), "folder with semper-init, semperd, semper-installd and semperctl for the image")
	flags.StringArrayVar(&o.Overlays, "overlay", nil, "another folder laid over the root, after the image's own tree/ (may be repeated)")
	flags.BoolVar(&o.Replace, "replace", false, "replace a release of this version that is there already")
	flags.BoolVar(&only, "download-only", false, "bring the locked packages into the cache and build nothing; needs no root, version or keys")
	flags.BoolVar(&again, "reproducible-check", false, "build a second time without cached steps, and compare every byte")
	return c
}

func download(c *cobra.Command, o image.Options, asJSON bool) error {
	n, size, err := image.Download(c.Context(), o)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(map[string]int64{"packages": int64(n), "bytes": size})
	}
	fmt.Fprintf(c.OutOrStdout(), "%d packages (%s) are in %s\n", n, progress.Size(size), o.Cache)
	return nil
}

func printBuild(c *cobra.Command, r *image.Result, compared bool) {
	w := c.OutOrStdout()
	fmt.Fprintf(w, "%s\n", r.Release)
	fmt.Fprintf(w, "  root hash  %s\n", r.RootHash)
	for _, name := range []string{"disk.raw", "root.erofs", "uki.efi", "full.crau"} {
		fmt.Fprintf(w, "  %-10s %10s\n", name, progress.Size(r.Files[name]))
	}
	for _, s := range r.Steps {
		note := ""
		if s.Cached {
			note = "  (cached)"
		}
		fmt.Fprintf(w, "  %-20s %6.1f s%s\n", s.Name, s.Seconds, note)
	}
	if compared {
		fmt.Fprintln(w, "  built twice: every file has the same bytes")
	}
}

// defaultCache is SEMPER_CACHE, or the user's cache folder.
func defaultCache() string {
	if d := os.Getenv("SEMPER_CACHE"); d != "" {
		return d
	}
	if d, err := os.UserCacheDir(); err == nil {
		return filepath.Join(d, "semper")
	}
	return filepath.Join("out", "cache")
}

// defaultPrograms is the folder of this program: all of Semper's programs are installed side by side.
func defaultPrograms() string {
	self, err := os.Executable()
	if err != nil {
		return "bin"
	}
	return filepath.Dir(self)
}
