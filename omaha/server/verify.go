package server

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/payload/detached"
)

// verifyManifest refuses a release whose manifest was not signed by those whom this server trusts. It comes before the manifest is parsed.
func (s *Server) verifyManifest(n *api.NewRelease) error {
	if len(s.cfg.Trust.Keys) == 0 {
		return nil
	}
	var list []detached.Signature
	if err := json.Unmarshal(n.Signature, &list); err != nil {
		return fault.New(fault.Verification, "the manifest's signature is not JSON: %w", err)
	}
	if _, err := detached.Verify(n.Manifest, list, s.cfg.Trust); err != nil {
		return fault.New(fault.Verification, "the manifest: %w", err)
	}
	return nil
}

// verifyPayload reads a payload that was uploaded, as a machine will, and refuses one that machines would refuse or that is not the release's.
func (s *Server) verifyPayload(ctx context.Context, r *fleet.Release) error {
	if len(s.cfg.Trust.Keys) == 0 {
		return nil
	}
	f, err := s.payloads.File(ctx, r.Payload.SHA256, r.Payload.Size)
	if errors.Is(err, fs.ErrNotExist) {
		return conflict("the payload of %s was not uploaded", r.Version)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	report, err := payload.Check(ctx, f, r.Payload.Size, s.cfg.Trust, nil)
	if err != nil {
		return fault.New(fault.Verification, "the payload: %w", err)
	}
	if report.SHA256 != r.Payload.SHA256 {
		return fault.New(fault.IO, "the payload on disk has the SHA-256 %x, and not %s", report.SHA256, hex.EncodeToString(r.Payload.SHA256[:]))
	}
	if m := report.Manifest; m.Image.Version != r.Version || m.Image.Architecture != r.Arch || m.Image.MinVersion != r.MinVersion {
		return fault.New(fault.Verification, "the payload is of version %s for %s (from %q on), and the manifest of %s for %s (from %q on)",
			m.Image.Version, m.Image.Architecture, m.Image.MinVersion, r.Version, r.Arch, r.MinVersion)
	}
	return nil
}
