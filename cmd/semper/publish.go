package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/freshness"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/progress"
)

type publishFlags struct {
	server, channel, app, tokenFile string
	keys                            payloadKeys
}

// published is what publishing did, for people and for --json.
type published struct {
	dir      string   // of the release
	Server   string   `json:"server"`
	App      string   `json:"app"`
	Version  string   `json:"version"`
	Arch     string   `json:"arch"`
	Channel  string   `json:"channel"`
	Payload  api.File `json:"payload"`
	Sent     int64    `json:"sent"`                // bytes of the payload that had to be sent
	Verified bool     `json:"signatures_verified"` // false: no key was given
	SignedBy []string `json:"signed_by,omitempty"` // the key files whose keys signed

	Freshness *publishedFreshness `json:"freshness,omitempty"` // nil: the channel has no freshness statement, or it could not be asked for
}

// publishedFreshness is what the channel's freshness statement says, after its release changed.
type publishedFreshness struct {
	Version string    `json:"version"`
	Expires time.Time `json:"expires"`
	Old     bool      `json:"old"` // it names another version than the one published
}

func newPublishCommand() *cobra.Command {
	var f publishFlags
	c := &cobra.Command{
		Use:   "publish RELEASE --server URL --token-file FILE [--channel NAME] [--key PEM]...",
		Short: "Upload a release to an update server, and offer it to a channel's machines",
		Long: `Verifies the release directory, uploads its payload and its signed manifest, and with --channel makes it that channel's current
release, for all its machines at once. Without, it waits at the server: a rollout brings it to them in steps (docs/rollouts.md).

Every file is compared with the manifest before a byte is sent. With --key the manifest's signatures are verified too; without,
a release that machines refuse is only noticed there. An upload that was interrupted goes on where it stopped when the command is
repeated, and repeating it after a success changes nothing. A version is published once: other content needs another version.

The token is read from a file that nobody else can read; the server writes one to publish.token in its data folder at its first start.`,
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := publish(c.Context(), args[0], &f)
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return fault.Wrap(fault.IO, json.NewEncoder(c.OutOrStdout()).Encode(p))
			}
			return fault.Wrap(fault.IO, p.print(c.OutOrStdout()))
		},
	}
	c.Flags().StringVar(&f.server, "server", "", "the update server's URL")
	c.Flags().StringVar(&f.channel, "channel", "", "the channel whose machines get it at once, for instance stable; without, it waits at the server for a rollout")
	c.Flags().StringVar(&f.tokenFile, "token-file", "", "file that holds a publisher's token")
	c.Flags().StringVar(&f.app, "app", api.DefaultApp, "the application's name or id at the server")
	f.keys.flags(c, "file with public keys that sign releases; may be repeated")
	return c
}

func publish(ctx context.Context, dir string, f *publishFlags) (published, error) {
	for _, flag := range [][2]string{{"server", f.server}, {"token-file", f.tokenFile}} {
		if flag[1] == "" {
			return published{}, fault.New(fault.Usage, "semper publish needs --%s (see 'semper publish --help')", flag[0])
		}
	}
	trust, err := f.keys.load()
	if err != nil {
		return published{}, err
	}
	token, err := client.ReadToken(f.tokenFile)
	if err != nil {
		return published{}, err
	}
	c, err := client.NewClient(f.server, token)
	if err != nil {
		return published{}, err
	}
	r, err := release.OpenUnverified(dir)
	if len(trust.Keys) > 0 {
		r, err = release.Open(dir, trust)
	}
	if err != nil {
		return published{}, err
	}
	bar := progress.New(os.Stderr, "verify "+r.Manifest.Dir(), r.Size())
	err = r.CheckFiles(ctx, bar)
	bar.Done()
	if err != nil {
		return published{}, fmt.Errorf("release %s: %w", dir, err)
	}
	p, err := send(ctx, c, r, f)
	p.Verified, p.SignedBy = len(trust.Keys) > 0, f.keys.signedBy(r.Signers)
	return p, err
}

// send brings a verified release to the server. Each step can be repeated, so that the whole can.
func send(ctx context.Context, c *client.Client, r *release.Release, f *publishFlags) (published, error) {
	m := &r.Manifest
	p := published{dir: r.Dir, Server: f.server, App: f.app, Version: m.Version, Arch: m.Architecture, Channel: f.channel}
	file, ok := m.File(release.Payload)
	if !ok {
		return p, fault.New(fault.Input, "release %s has no %s: there is nothing that a machine could download", r.Dir, release.Payload)
	}
	p.Payload = api.File{Name: file.Name, Size: file.Size, SHA256: file.SHA256}
	manifest, err := m.Marshal() // the only form that a manifest may have, so the bytes that were signed
	if err != nil {
		return p, err
	}
	signature, err := os.ReadFile(r.Path(release.SignatureFile))
	if err != nil {
		return p, fault.Wrap(fault.Input, err)
	}
	packages, err := os.ReadFile(r.Path(release.Packages))
	if err != nil {
		return p, fault.Wrap(fault.Input, err)
	}
	content, err := os.Open(r.Path(release.Payload))
	if err != nil {
		return p, fault.Wrap(fault.Input, err)
	}
	defer content.Close()
	bar := progress.New(os.Stderr, "upload "+filepath.Join(m.Dir(), file.Name), file.Size)
	p.Sent, err = c.Upload(ctx, p.Payload, content, bar)
	bar.Done()
	if err != nil {
		return p, err
	}
	_, err = c.PutRelease(ctx, m.Version, client.PutReleaseQuery{App: f.app, Arch: m.Architecture}, api.NewRelease{Manifest: manifest, Signature: signature, Packages: packages})
	if err != nil {
		return p, fmt.Errorf("publish release %s: %w", m.Version, err)
	}
	if f.channel == "" { // a rollout, or a person, brings it to a channel
		return p, nil
	}
	if _, err := c.SetChannel(ctx, f.channel, client.SetChannelQuery{App: f.app, Arch: m.Architecture}, api.SetChannel{Version: m.Version}); err != nil {
		return p, fmt.Errorf("assign %s to channel %s: %w", m.Version, f.channel, err)
	}
	// The release is out whatever comes of this.
	if b, err := statementOf(ctx, c, f.app, m.Architecture, f.channel); err == nil && b != nil {
		if s, err := freshness.Unverified(b); err == nil {
			p.Freshness = &publishedFreshness{Version: s.Version, Expires: s.Expires, Old: s.Version != m.Version}
		}
	}
	return p, nil
}

func (p *published) print(w io.Writer) error {
	signed := "not verified: no --key was given"
	if p.Verified {
		signed = "verified, by " + strings.Join(p.SignedBy, ", ")
	}
	upload := "nothing to send, the server had all of it"
	if p.Sent > 0 {
		upload = progress.Size(p.Sent) + " sent"
		if p.Sent < p.Payload.Size {
			upload += ", the server had the rest"
		}
	}
	fresh := ""
	if s := p.Freshness; s != nil {
		fresh = fmt.Sprintf("freshness   the channel's statement names %s, until %s UTC\n", s.Version, s.Expires.Format(time.DateTime))
		if s.Old {
			fresh += fmt.Sprintf("            It is OLD now: sign that %s is the newest with 'semper freshness --channel %s --release %s …'\n", p.Version, p.Channel, p.dir)
		}
	}
	channel := p.Channel + " now offers " + p.Version
	if p.Channel == "" {
		channel = "none: it is offered to no machine until a rollout or 'semper-server channel set' brings it to one"
	}
	_, err := fmt.Fprintf(w, "signatures  %s\npayload     %s, %s\npublished   %s %s for %s at %s\nchannel     %s\n%s",
		signed, progress.Size(p.Payload.Size), upload, p.App, p.Version, p.Arch, p.Server, channel, fresh)
	return err
}
