package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/builder/keys"
	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/freshness"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/durable"
)

type freshnessFlags struct {
	channel, release, version, renew, cosign string // what to say; one of the last four
	product, arch, expires                   string
	keys                                     []string
	out, server, tokenFile, app              string
}

// stated is what stating a channel's freshness did, for people and for --json.
type stated struct {
	freshness.Statement
	SignedBy []string `json:"signed_by"`         // names of the keys that signed now
	Complete bool     `json:"complete"`          // each folder's threshold is reached
	Before   string   `json:"before,omitempty"`  // the version that the server's statement named
	Server   string   `json:"server,omitempty"`  // it has the statement
	File     string   `json:"file,omitempty"`    // it holds the statement
	Missing  string   `json:"missing,omitempty"` // which signatures are not there yet
}

func newFreshnessCommand() *cobra.Command {
	var f freshnessFlags
	c := &cobra.Command{
		Use:   "freshness --channel NAME (--release DIR | --version V) --keys DIR... [--expires 14d] [--out FILE] [--server URL --token-file FILE]",
		Short: "Sign what the newest version in a channel is, and until when that counts",
		Long: `Signs a small statement of what the newest version in a channel is, and until when that counts. Machines get it with every answer of the
server and notice when a server or network keeps updates from them: it can only repeat the last statement until that expires.

  --release DIR    name the version of this release, whose signatures are verified with the keys' public halves
  --version V      name this version
  --renew FILE     say again, with a new date, what this earlier statement said: for a timer on the machine that holds the keys
  --cosign FILE    add signatures to a statement that others have signed, and change nothing else

It is signed with every payload-N.key of the folders. While keys are being changed, name the old folder and the new one. Without --out and
--server the statement is printed.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			s, envelope, err := f.run(c.Context(), time.Now())
			if err != nil {
				return err
			}
			if f.out == "" && f.server == "" {
				_, err := fmt.Fprintf(c.OutOrStdout(), "%s\n", envelope)
				return fault.Wrap(fault.IO, err)
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return fault.Wrap(fault.IO, json.NewEncoder(c.OutOrStdout()).Encode(s))
			}
			return fault.Wrap(fault.IO, s.print(c.OutOrStdout()))
		},
	}
	c.Flags().StringVar(&f.channel, "channel", "", "the channel, for instance stable")
	c.Flags().StringVar(&f.release, "release", "", "the release directory of the newest version")
	c.Flags().StringVar(&f.version, "version", "", "the newest version")
	c.Flags().StringVar(&f.renew, "renew", "", "file with an earlier statement to say again")
	c.Flags().StringVar(&f.cosign, "cosign", "", "file with a statement to add signatures to")
	c.Flags().StringVar(&f.product, "product", "semper", "the image's name (IMAGE_ID), with --version")
	c.Flags().StringVar(&f.arch, "arch", api.DefaultArch, "the architecture, with --version")
	c.Flags().StringVar(&f.expires, "expires", "14d", "for how long it counts, for instance 14d or 36h; at most 90d")
	c.Flags().StringArrayVar(&f.keys, "keys", nil, "folder with payload keys; may be repeated")
	c.Flags().StringVar(&f.out, "out", "", "write the statement to this file")
	c.Flags().StringVar(&f.server, "server", "", "bring the statement to the update server at this URL")
	c.Flags().StringVar(&f.tokenFile, "token-file", "", "file that holds a publisher's token")
	c.Flags().StringVar(&f.app, "app", api.DefaultApp, "the application's name or id at the server")
	return c
}

func (f *freshnessFlags) check() error {
	wrong := func(format string, args ...any) error {
		return fault.New(fault.Usage, "semper freshness "+format+" (see 'semper freshness --help')", args...)
	}
	sources := 0
	for _, s := range []string{f.release, f.version, f.renew, f.cosign} {
		if s != "" {
			sources++
		}
	}
	switch {
	case sources != 1:
		return wrong("needs one of --release, --version, --renew and --cosign, got %d", sources)
	case len(f.keys) == 0:
		return wrong("needs --keys")
	case f.channel == "" && (f.release != "" || f.version != ""):
		return wrong("needs --channel")
	case f.channel != "" && (f.renew != "" || f.cosign != ""):
		return wrong("takes the channel from the statement: leave out --channel")
	case (f.server == "") != (f.tokenFile == ""):
		return wrong("needs both --server and --token-file, or neither")
	}
	return nil
}

// signers are the keys of several folders: during a change of keys, the old ones and the new ones.
type signers struct {
	names  []string
	keys   []crypto.Signer
	dirs   []string
	trusts []payload.Trust // of each folder
}

func loadSigners(dirs []string) (signers, error) {
	s := signers{dirs: dirs}
	for _, dir := range dirs {
		k, err := keys.LoadPayload(dir)
		if err != nil {
			return s, err
		}
		for _, p := range k.Payload {
			if slices.ContainsFunc(s.keys, func(have crypto.Signer) bool {
				return have.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(p.Signer.Public())
			}) {
				continue // both folders hold it
			}
			s.names, s.keys = append(s.names, filepath.Join(dir, p.Name+".key")), append(s.keys, p.Signer)
		}
		s.trusts = append(s.trusts, payload.Trust{Keys: k.Public.PayloadKeys(), Threshold: k.Public.Threshold})
	}
	return s, nil
}

func (f *freshnessFlags) run(ctx context.Context, now time.Time) (stated, []byte, error) {
	var c *client.Client
	if f.server != "" {
		token, err := client.ReadToken(f.tokenFile)
		if err != nil {
			return stated{}, nil, err
		}
		if c, err = client.NewClient(f.server, token); err != nil {
			return stated{}, nil, err
		}
	}
	by, err := loadSigners(f.keys)
	if err != nil {
		return stated{}, nil, err
	}
	envelope, err := f.sign(by, now)
	if err != nil {
		return stated{}, nil, err
	}
	out := stated{SignedBy: by.names}
	if out.Statement, err = freshness.Unverified(envelope); err != nil {
		return out, nil, err
	}
	if err := by.verify(&out, envelope, now); err != nil {
		return out, nil, err
	}
	if f.out != "" {
		dir, name := filepath.Split(filepath.Clean(f.out))
		if dir == "" {
			dir = "."
		}
		if err := durable.Write(durable.At(dir), name, append(bytes.Clone(envelope), '\n')); err != nil {
			return out, nil, fault.New(fault.IO, "write the freshness statement: %w", err)
		}
		out.File = f.out
	}
	if c == nil {
		return out, envelope, nil
	}
	if !out.Complete {
		return out, nil, fault.New(fault.Verification, "the freshness statement is not brought to the server: %s", out.Missing)
	}
	before, err := statementOf(ctx, c, f.app, out.Architecture, out.Channel)
	if err != nil {
		return out, nil, err
	}
	if old, err := freshness.Unverified(before); err == nil {
		out.Before = old.Version
	}
	if _, err := c.PutFreshness(ctx, out.Channel, client.PutFreshnessQuery{App: f.app, Arch: out.Architecture}, envelope); err != nil {
		return out, nil, err
	}
	out.Server = f.server
	return out, envelope, nil
}

// sign makes the statement that the flags ask for.
func (f *freshnessFlags) sign(by signers, now time.Time) ([]byte, error) {
	if f.cosign != "" {
		b, err := readStatement(f.cosign)
		if err != nil {
			return nil, err
		}
		b, err = freshness.Cosign(b, by.keys)
		return b, inFile(f.cosign, err)
	}
	lifetime, err := parseDays(f.expires)
	if err != nil {
		return nil, fault.New(fault.Usage, "--expires: %w", err)
	}
	now = now.UTC().Truncate(time.Second)
	s := freshness.Statement{Product: f.product, Channel: f.channel, Architecture: f.arch, Version: f.version}
	switch {
	case f.renew != "":
		b, err := readStatement(f.renew)
		if err != nil {
			return nil, err
		}
		if s, err = by.renew(b, now); err != nil {
			return nil, inFile(f.renew, err)
		}
	case f.release != "":
		m, err := by.open(f.release)
		if err != nil {
			return nil, err
		}
		s.Product, s.Architecture, s.Version = m.Name, m.Architecture, m.Version
	}
	s.Issued, s.Expires, s.Sequence = now, now.Add(lifetime), uint64(now.Unix())
	return freshness.Sign(s, by.keys)
}

// open reads the manifest of a release that enough keys of one of the folders have signed.
func (s *signers) open(dir string) (*release.Manifest, error) {
	var first error
	for _, trust := range s.trusts {
		r, err := release.Open(dir, trust)
		if err == nil {
			return &r.Manifest, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// renew returns an earlier statement that was signed by enough keys of one of the folders, expired or not.
func (s *signers) renew(b []byte, now time.Time) (freshness.Statement, error) {
	claim, err := freshness.Unverified(b)
	if err != nil {
		return claim, err
	}
	if claim.Issued.After(now) {
		return claim, fault.New(fault.Input, "it was issued on %s, and this machine's clock says %s", claim.Issued.Format(time.DateTime), now.Format(time.DateTime))
	}
	err = s.check(b, &claim, false)
	return claim, err
}

// check verifies a statement for each folder's machines, or for those of one of them.
func (s *signers) check(b []byte, claim *freshness.Statement, all bool) error {
	m := freshness.Machine{Product: claim.Product, Channel: claim.Channel, Architecture: claim.Architecture, Now: claim.Issued}
	var last error
	for i, trust := range s.trusts {
		_, err := freshness.Verify(b, trust, m, freshness.Statement{})
		switch {
		case err == nil && !all:
			return nil
		case err != nil && all:
			return fmt.Errorf("machines that trust %s would refuse it: %w", s.dirs[i], err)
		case err != nil:
			last = err
		}
	}
	return last
}

// verify finds out whether machines will believe what was signed.
func (s *signers) verify(out *stated, envelope []byte, now time.Time) error {
	err := s.check(envelope, &out.Statement, true)
	if err != nil && freshness.CaseOf(err) != freshness.BadSignature {
		return err
	}
	if !now.Before(out.Expires) {
		return fault.New(fault.Input, "the freshness statement expired on %s", out.Expires.Format(time.DateTime))
	}
	if out.Complete = err == nil; !out.Complete {
		out.Missing = err.Error()
	}
	return nil
}

// readStatement reads a file that this command wrote.
func readStatement(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(fault.Input, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, freshness.MaxSize+2))
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	return bytes.TrimSuffix(b, []byte("\n")), nil
}

func inFile(path string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// parseDays reads a duration such as 14d, 36h or 90m.
func parseDays(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is not a number of days", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d%time.Second != 0 {
		return 0, errors.New(strconv.Quote(s) + " is not a time such as 14d or 36h, in whole seconds")
	}
	return d, nil
}

func (s *stated) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "newest      %s %s for %s in channel %s\n", s.Product, s.Version, s.Architecture, s.Channel)
	if s.Before != "" && s.Before != s.Version {
		fmt.Fprintf(&b, "before      %s\n", s.Before)
	}
	fmt.Fprintf(&b, "issued      %s UTC\nexpires     %s UTC\nsigned by   %s\n", s.Issued.Format(time.DateTime), s.Expires.Format(time.DateTime), strings.Join(s.SignedBy, ", "))
	if !s.Complete {
		fmt.Fprintf(&b, "MISSING     %s\n", s.Missing)
	}
	if s.File != "" {
		fmt.Fprintf(&b, "written to  %s\n", s.File)
	}
	if s.Server != "" {
		fmt.Fprintf(&b, "now at      %s\n", s.Server)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// statementOf returns a channel's statement in its envelope, not verified; nil if the server has none, or knows no such channel.
func statementOf(ctx context.Context, c *client.Client, app, arch, channel string) ([]byte, error) {
	envelope, err := c.Freshness(ctx, channel, client.FreshnessQuery{App: app, Arch: arch})
	var status *client.StatusError
	if errors.As(err, &status) && status.Status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("freshness statement of channel %s: %w", channel, err)
	}
	return envelope, nil
}
