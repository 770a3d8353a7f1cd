package main

import (
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/progress"
)

func newPayloadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "payload",
		Short: "Look into update payloads and apply them to image files",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newPayloadInfoCommand(), newPayloadApplyCommand())
	return c
}

// payloadKeys are the public keys that flags name, and the files they came from.
type payloadKeys struct {
	files     []string
	threshold int

	keys  []crypto.PublicKey
	names []string
}

func (k *payloadKeys) flags(c *cobra.Command, about string) {
	c.Flags().StringArrayVar(&k.files, "key", nil, about)
	c.Flags().IntVar(&k.threshold, "threshold", 1, "so many different keys must have signed")
}

func (k *payloadKeys) load() (payload.Trust, error) {
	if k.threshold < 1 {
		return payload.Trust{}, fault.New(fault.Usage, "--threshold %d: at least one signature must be asked for", k.threshold)
	}
	for _, name := range k.files {
		b, err := os.ReadFile(name)
		if err != nil {
			return payload.Trust{}, fault.New(fault.Input, "--key: %w", err)
		}
		keys, err := payload.ParsePublicKeys(b)
		if err != nil {
			return payload.Trust{}, fault.New(fault.Input, "--key %s: %w", name, err)
		}
		for _, key := range keys {
			k.keys, k.names = append(k.keys, key), append(k.names, name)
		}
	}
	return payload.Trust{Keys: k.keys, Threshold: k.threshold}, nil
}

// signedBy returns the files that the keys came from.
func (k *payloadKeys) signedBy(signers []crypto.PublicKey) []string {
	var names []string
	for _, s := range signers {
		for i, key := range k.keys {
			if key.(interface{ Equal(crypto.PublicKey) bool }).Equal(s) && !slices.Contains(names, k.names[i]) {
				names = append(names, k.names[i])
				break
			}
		}
	}
	return names
}

// payloadInfo is what is known of a payload file, for people and for --json.
type payloadInfo struct {
	File       string             `json:"file"`
	Size       int64              `json:"size"`
	Verified   bool               `json:"verified"`            // metadata, blobs and signatures; false: no key was given, nothing was checked
	SignedBy   []string           `json:"signed_by,omitempty"` // the key files whose keys signed
	Threshold  int                `json:"threshold,omitempty"`
	SHA256     string             `json:"sha256,omitempty"` // of the file, where it was verified
	Image      payload.Image      `json:"image"`
	Made       *time.Time         `json:"made,omitempty"`
	Metadata   int64              `json:"metadata_size"`
	Partitions []payloadPartition `json:"partitions"`
}

type payloadPartition struct {
	Name       string `json:"name"`
	Size       int64  `json:"size"`
	Stored     int64  `json:"stored"` // bytes of the payload that it takes
	Operations int    `json:"operations"`
	SHA256     string `json:"sha256"`
	RootHash   string `json:"root_hash,omitempty"`
}

func (p *payloadInfo) fill(m *payload.Manifest) {
	p.Image, p.Metadata = m.Image, m.MetadataSize
	if !m.Timestamp.IsZero() {
		p.Made = &m.Timestamp
	}
	for _, part := range m.Partitions {
		q := payloadPartition{Name: part.Name, Size: part.Size, Stored: part.DataSize, Operations: part.Operations, SHA256: hex.EncodeToString(part.SHA256[:])}
		if part.Verity != nil {
			q.RootHash = part.Verity.RootHash.String()
		}
		p.Partitions = append(p.Partitions, q)
	}
}

func (p *payloadInfo) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "image\t%s %s for %s, epoch %d\n", p.Image.ID, p.Image.Version, p.Image.Architecture, p.Image.Epoch)
	from := "any version"
	if p.Image.MinVersion != "" {
		from = p.Image.MinVersion + " or newer"
	}
	fmt.Fprintf(t, "installs from\t%s\n", from)
	if p.Made != nil {
		fmt.Fprintf(t, "made\t%s\n", p.Made.Format(time.RFC3339))
	}
	fmt.Fprintf(t, "file\t%s (%d bytes), of which %s metadata\n", progress.Size(p.Size), p.Size, progress.Size(p.Metadata))
	if p.Verified {
		fmt.Fprintf(t, "SHA-256\t%s\n", p.SHA256)
		fmt.Fprintf(t, "signatures\tverified: signed by %s; %d needed\n", strings.Join(p.SignedBy, ", "), p.Threshold)
	} else {
		fmt.Fprintf(t, "signatures\tnot verified: no --key was given, so all of this is only what the file says of itself\n")
	}
	for _, q := range p.Partitions {
		fmt.Fprintf(t, "%s\t%s, %s in the payload, %d operations\n", q.Name, progress.Size(q.Size), progress.Size(q.Stored), q.Operations)
		fmt.Fprintf(t, "\tSHA-256 %s\n", q.SHA256)
		if q.RootHash != "" {
			fmt.Fprintf(t, "\troot hash %s\n", q.RootHash)
		}
	}
	return t.Flush()
}

func newPayloadInfoCommand() *cobra.Command {
	var keys payloadKeys
	c := &cobra.Command{
		Use:   "info FILE [--key PEM]...",
		Short: "Show what a payload installs, and whether its signatures are good",
		Long: `Show what a payload installs. With --key, all of the file is verified first, and nothing is shown of one that
is not signed by the keys. Without, the file's own word is shown, and marked as not verified.`,
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			trust, err := keys.load()
			if err != nil {
				return err
			}
			f, size, err := openPayload(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			info := payloadInfo{File: args[0], Size: size}
			if len(keys.files) == 0 {
				m, err := payload.Inspect(c.Context(), f, size)
				if err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
				info.fill(m)
			} else {
				report, err := checkPayload(c.Context(), f, args[0], size, trust)
				if err != nil {
					return err
				}
				info.Verified, info.Threshold = true, trust.Threshold
				info.SHA256, info.SignedBy = hex.EncodeToString(report.SHA256[:]), keys.signedBy(report.Signers)
				info.fill(report.Manifest)
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(info)
			}
			return info.print(c.OutOrStdout())
		},
	}
	keys.flags(c, "file with public keys that may have signed the payload; may be repeated")
	return c
}

func openPayload(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, fault.New(fault.Input, "%w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, fault.New(fault.Input, "%w", err)
	}
	return f, info.Size(), nil
}

func checkPayload(ctx context.Context, r io.Reader, name string, size int64, trust payload.Trust) (*payload.Report, error) {
	bar := progress.New(os.Stderr, "verify "+filepath.Base(name), size)
	defer bar.Done()
	report, err := payload.Check(ctx, r, size, trust, func(n int) { bar.Add(int64(n)) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return report, nil
}
