package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/progress"
)

// applyFlags are the files that payload apply reads and makes.
type applyFlags struct {
	keys                                 payloadKeys
	source, root, uki, rootsig, hashTree string
}

func newPayloadApplyCommand() *cobra.Command {
	var o applyFlags
	c := &cobra.Command{
		Use:   "apply FILE --target IMG --key PEM...",
		Short: "Verify a payload and unpack it to image files",
		Long: `Verify a payload and unpack it to image files. Each file appears under its name only when everything was verified:
the signatures, what was written, and the dm-verity root hash.`,
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.root == "" {
				return fault.New(fault.Usage, "%s needs --target IMG, the file to make of the root partition", c.CommandPath())
			}
			if len(o.keys.files) == 0 {
				return fault.New(fault.Usage, "%s needs --key PEM, a public key that must have signed the payload", c.CommandPath())
			}
			done, err := o.apply(c.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(done)
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "%s %s for %s, signed by %s, root hash %s\n", done.Image.ID, done.Image.Version, done.Image.Architecture,
				strings.Join(done.SignedBy, ", "), done.RootHash)
			for _, f := range done.Files {
				fmt.Fprintf(w, "%s: %s (%d bytes)\n", f.Path, f.Name, f.Size)
			}
			return nil
		},
	}
	o.keys.flags(c, "file with public keys that must have signed the payload; may be repeated")
	c.Flags().StringVar(&o.source, "source", "", "the image that a delta payload starts from; a full payload needs none")
	c.Flags().StringVar(&o.root, "target", "", "the file to make of the root partition")
	c.Flags().StringVar(&o.uki, "uki", "", "the file to make of the unified kernel image")
	c.Flags().StringVar(&o.rootsig, "rootsig", "", "the file to make of the root hash's signature partition")
	c.Flags().StringVar(&o.hashTree, "verity", "", "the file to make of the root partition's dm-verity superblock and hash tree")
	return c
}

// applied says what payload apply made.
type applied struct {
	Image    payload.Image `json:"image"`
	RootHash string        `json:"root_hash"`
	SHA256   string        `json:"sha256"` // of the payload
	SignedBy []string      `json:"signed_by"`
	Files    []appliedFile `json:"files"`
}

type appliedFile struct {
	Name string `json:"name"`
	Path string `json:"path"`
	Size int64  `json:"size"`
}

func (o *applyFlags) apply(ctx context.Context, name string) (_ *applied, err error) {
	trust, err := o.keys.load()
	if err != nil {
		return nil, err
	}
	outputs := []*outputFile{{name: "root", path: o.root}, {name: "uki", path: o.uki}, {name: "rootsig", path: o.rootsig}, {name: "verity", path: o.hashTree}}
	if err := o.checkPaths(name, outputs); err != nil {
		return nil, err
	}
	in, size, err := openPayload(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	report, err := checkPayload(ctx, in, name, size, trust) // all of it, before the first byte is written
	if err != nil {
		return nil, err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return nil, fault.New(fault.IO, "%w", err)
	}
	defer func() {
		for _, f := range outputs {
			err = errors.Join(err, f.discard())
		}
	}()
	options := payload.Options{Trust: trust, Accept: payload.AcceptAny, Size: size, SHA256: report.SHA256[:], Targets: map[string]payload.Target{}}
	for _, f := range outputs {
		if err := f.create(filepath.Dir(o.root)); err != nil {
			return nil, err
		}
		if f.name != "verity" {
			options.Targets[f.name] = payload.Target{Storage: f.temporary, Limit: payload.MaxPartitionSize}
		}
	}
	withTree := options.Targets["root"]
	withTree.Tree = outputs[3].temporary
	options.Targets["root"] = withTree
	m, err := applyFile(ctx, in, name, options)
	if err != nil {
		return nil, err
	}
	root := m.Partition("root")
	if root.Verity == nil {
		return nil, fault.New(fault.Verification, "%s: the payload has no dm-verity root hash for its root", name)
	}
	done := &applied{
		Image: m.Image, RootHash: root.Verity.RootHash.String(),
		SHA256: hex.EncodeToString(report.SHA256[:]), SignedBy: o.keys.signedBy(report.Signers),
	}
	for _, f := range outputs {
		if f.path == "" {
			continue
		}
		written, err := f.publish()
		if err != nil {
			return nil, err
		}
		done.Files = append(done.Files, appliedFile{f.name, f.path, written})
	}
	return done, nil
}

func applyFile(ctx context.Context, r io.Reader, name string, o payload.Options) (*payload.Manifest, error) {
	var bar *progress.Bar
	var phase payload.Phase
	var last int64
	defer func() { bar.Done() }()
	o.Progress = func(p payload.Progress) {
		if p.Phase != phase {
			bar.Done()
			bar = progress.New(os.Stderr, string(p.Phase)+" "+filepath.Base(name), p.Total)
			phase, last = p.Phase, 0
		}
		bar.Add(p.Done - last)
		last = p.Done
	}
	a, err := payload.NewApplier(o)
	if err != nil {
		return nil, err
	}
	res, err := a.Apply(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return res.Manifest, nil
}

// checkPaths refuses output files that are the same as another, or as an input, or not files at all.
func (o *applyFlags) checkPaths(name string, outputs []*outputFile) error {
	if o.source != "" {
		if _, err := os.Stat(o.source); err != nil {
			return fault.New(fault.Input, "--source: %w", err)
		}
	}
	taken := map[string]string{}
	for _, in := range append([]string{name, o.source}, o.keys.files...) {
		if in == "" {
			continue
		}
		path, err := filepath.Abs(in)
		if err != nil {
			return fault.New(fault.IO, "%w", err)
		}
		taken[path] = "is read"
	}
	for _, f := range outputs {
		if f.path == "" {
			continue
		}
		path, err := filepath.Abs(f.path)
		if err != nil {
			return fault.New(fault.IO, "%w", err)
		}
		if why := taken[path]; why != "" {
			return fault.New(fault.Usage, "%s cannot be made of %s: it %s", f.path, f.name, why)
		}
		taken[path] = "is made of " + f.name
		if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
			return fault.New(fault.Usage, "%s exists and is not a regular file; payload apply makes image files, it does not write devices", f.path)
		}
	}
	return nil
}

// outputFile is a file in the making. One without a path is made all the same, because it has to be verified, and thrown away.
type outputFile struct {
	name, path string
	temporary  *os.File
}

// create makes the temporary file, beside the one to come or else in dir.
func (f *outputFile) create(dir string) error {
	if f.path != "" {
		dir = filepath.Dir(f.path)
	}
	var err error
	if f.temporary, err = os.CreateTemp(dir, ".semper-"+f.name+"-*"); err != nil {
		return fault.New(fault.IO, "make %s: %w", f.name, err)
	}
	return nil
}

// publish gives the file its name, durably, and returns its size.
func (f *outputFile) publish() (int64, error) {
	fail := func(err error) (int64, error) { return 0, fault.New(fault.IO, "%s: %w", f.path, err) }
	info, err := f.temporary.Stat()
	if err != nil {
		return fail(err)
	}
	if err := f.temporary.Chmod(0o644); err != nil {
		return fail(err)
	}
	if err := f.temporary.Sync(); err != nil {
		return fail(err)
	}
	if err := os.Rename(f.temporary.Name(), f.path); err != nil {
		return fail(err)
	}
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fail(err)
	}
	return info.Size(), nil
}

// discard closes the temporary file and deletes it, unless it was published.
func (f *outputFile) discard() error {
	if f.temporary == nil {
		return nil
	}
	err := f.temporary.Close()
	if rmErr := os.Remove(f.temporary.Name()); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
		err = errors.Join(err, rmErr)
	}
	if err != nil {
		return fault.New(fault.IO, "clean up: %w", err)
	}
	return nil
}
