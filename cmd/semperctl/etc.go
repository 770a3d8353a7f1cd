package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/etcdiff"
)

func (p *program) etcCommand() *cobra.Command {
	c := &cobra.Command{Use: "etc", Short: "What this machine changed in /etc", Args: noArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(p.etcDiffCommand())
	return c
}

func (p *program) etcDiffCommand() *cobra.Command {
	var upper, lower string
	c := &cobra.Command{
		Use:   "diff [PATH]",
		Short: "What this machine changed in /etc, or in one file of it",
		Long: "What this machine changed in /etc: files that were added, changed or removed against the running image's. With PATH, the lines that differ in that file.\n\n" +
			"Exits with 0 whether or not there are differences. For root.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fault.New(fault.Usage, "%s takes at most one path, got %q", c.CommandPath(), args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if lower == "" {
				image, err := etcdiff.Image()
				if err != nil {
					return err
				}
				defer image.Close()
				lower = fmt.Sprintf("/proc/%d/fd/%d/etc", os.Getpid(), image.Fd()) // a path that the diff program can open too
			}
			if len(args) == 1 {
				return p.etcDiffFile(c, args[0], upper, lower)
			}
			changes, err := etcdiff.Compare(upper, lower)
			if err != nil {
				return err
			}
			if p.json {
				if changes == nil {
					changes = []etcdiff.Change{}
				}
				return p.print(changes)
			}
			var lines []string
			for _, ch := range changes {
				l := fmt.Sprintf("%-8s /etc/%s", ch.Kind, ch.Path)
				if len(ch.How) > 0 {
					l += " (" + strings.Join(ch.How, ", ") + ")"
				}
				lines = append(lines, l)
			}
			return p.lines(lines)
		},
	}
	c.Flags().StringVar(&upper, "upper", etcdiff.UpperPath, "the machine's layer of /etc")
	c.Flags().StringVar(&lower, "lower", "", "the image's /etc (default: what lies below the mounted one)")
	return c
}

// etcDiffFile shows the lines that differ, by the system's diff.
func (p *program) etcDiffFile(c *cobra.Command, path, upper, lower string) error {
	rel, err := filepath.Rel("/etc", filepath.Join("/etc", strings.TrimPrefix(path, "/etc/")))
	if err != nil || !filepath.IsLocal(rel) {
		return fault.New(fault.Usage, "%q is not a path below /etc", path)
	}
	if p.json {
		return fault.New(fault.Usage, "--json lists what changed; it does not go together with a path")
	}
	side := func(layer string) string {
		file := filepath.Join(layer, rel)
		if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
			return os.DevNull // not there, removed, or nothing that has lines
		}
		return file
	}
	cmd := exec.CommandContext(c.Context(), "diff", "-u", "--label", "image: /etc/"+rel, "--label", "machine: /etc/"+rel, side(lower), side(upper))
	cmd.Stdout, cmd.Stderr = p.out, c.ErrOrStderr()
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil // they differ
	}
	if err != nil {
		return fault.New(fault.IO, "diff: %w", err)
	}
	return nil
}
