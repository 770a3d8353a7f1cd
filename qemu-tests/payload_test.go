package qemutests

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/builder/keys"
	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/qemu-tests/tamper"
	"github.com/semper-os/semper/updater/agent"
)

// imageKeys loads the keys that the releases were made with.
func imageKeys(t *testing.T) *keys.Keys {
	t.Helper()
	k, err := keys.Load(keysFolder())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// foreignKeys makes keys that no machine trusts.
func foreignKeys(t *testing.T) *keys.Keys {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := keys.New(t.Context(), dir, keys.Options{Now: time.Now(), Rand: rand.Reader, Fast: true}); err != nil {
		t.Fatal(err)
	}
	k, err := keys.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// openRelease reads the manifest of the release in a folder.
func openRelease(t *testing.T, dir string) *release.Release {
	t.Helper()
	public := imageKeys(t).Public
	r, err := release.Open(dir, payload.Trust{Keys: public.PayloadKeys(), Threshold: public.Threshold})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// inspect reads a payload's table of contents without asking who signed it.
func inspect(t *testing.T, path string) *payload.Manifest {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := payload.Inspect(t.Context(), f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// forge publishes a file as the payload of a version, around "semper publish": what a server that was broken into could do. The release's list is that of an
// existing release with the version and the payload replaced, signed with signers.
func (s *server) forge(like, version, file string, signers []crypto.Signer) {
	s.t.Helper()
	f, err := os.Open(file)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	size, err := f.WriteTo(sum)
	if err != nil {
		s.t.Fatal(err)
	}
	manifest := openRelease(s.t, releasePath(like)).Manifest
	manifest.Version = version
	for i := range manifest.Files {
		if manifest.Files[i].Name == release.Payload {
			manifest.Files[i].Size, manifest.Files[i].SHA256 = size, hex.EncodeToString(sum.Sum(nil))
		}
	}
	list, err := manifest.Marshal()
	if err != nil {
		s.t.Fatal(err)
	}
	signature, err := release.Sign(list, signers)
	if err != nil {
		s.t.Fatal(err)
	}
	token, err := os.ReadFile(s.TokenFile)
	if err != nil {
		s.t.Fatal(err)
	}
	publisher, err := client.NewClient(s.URL, strings.TrimSpace(string(token)))
	if err != nil {
		s.t.Fatal(err)
	}
	blob := api.File{Name: release.Payload, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}
	if _, err := publisher.Upload(s.t.Context(), blob, f, nil); err != nil {
		s.t.Fatal(err)
	}
	published := api.NewRelease{Manifest: list, Signature: signature}
	if _, err := publisher.PutRelease(s.t.Context(), version, client.PutReleaseQuery{}, published); err != nil {
		s.t.Fatal(err)
	}
	if _, err := publisher.SetChannel(s.t.Context(), "stable", client.SetChannelQuery{}, api.SetChannel{Version: version}); err != nil {
		s.t.Fatal(err)
	}
}

// refuses has the machine try an update that it must refuse. Nothing may be left of it: no boot entry, no slot that looks complete, and nothing at all in
// the slot if untouched is set. The reason must be in the machine's status and at the server.
func refuses(t *testing.T, m *machine, s *server, version string, code omaha.ErrorCode, reason string, untouched bool) {
	t.Helper()
	entries := m.entries()
	label, _ := m.idleSlot()
	m.check()
	r := m.waitStatus(func(r agent.Report) bool {
		return r.State == agent.StateIdle && r.LastError != nil && r.LastError.Version == version
	})
	if !strings.Contains(r.LastError.Text, reason) || omaha.ErrorCode(r.LastError.Code) != code {
		t.Errorf("the status says %q (code %d), want %q (code %d)", r.LastError.Text, r.LastError.Code, reason, code)
	}
	if r.Pending != nil {
		t.Errorf("an update is pending: %+v", r.Pending)
	}
	after, blank := m.idleSlot()
	if untouched && (after != label || label == "_empty" && !blank) {
		t.Errorf("slot B was %q and is %q, blank %v", label, after, blank)
	}
	if strings.HasPrefix(after, "semper_") && after != label {
		t.Errorf("slot B looks complete: %q", after)
	}
	if got := m.entries(); got != entries {
		t.Errorf("boot entries %q, before %q", got, entries)
	}
	d := s.wait("the failure", func(m api.MachineDetail) bool { return m.State == "failed" })
	last := d.Events[len(d.Events)-1]
	if eventCode(last) != "3/0" || last.NextVersion != version || !strings.Contains(last.Reason, reason) || omaha.ErrorCode(last.Code).Base() != code {
		t.Errorf("the server's last event: %+v", last)
	}
}

// TestPayloadFlippedByte changes a byte on the way, once in the signed table of contents and once in the data.
func TestPayloadFlippedByte(t *testing.T) {
	t.Parallel()
	file := filepath.Join(releasePath(second), release.Payload)
	contents := inspect(t, file)
	for _, c := range []struct {
		name      string
		at        int64
		code      omaha.ErrorCode
		reason    string
		untouched bool
	}{
		{"table of contents", payload.HeaderSize + 40, 18, "signature", true},
		{"data", contents.MetadataSize + contents.DataSize/2, 29, "SHA-256", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startServer(t)
			s.publish(second)
			proxy := startProxy(t, s)
			proxy.Flip(c.at)
			m := branch(t, ready)
			m.use(proxy.URL)
			refuses(t, m, s, second, c.code, c.reason, c.untouched)
			if f := failure(s.wait("the failed version", hasFailed(second)), second); f.Code != int64(c.code) {
				t.Errorf("the server's record: %+v", f)
			}
		})
	}
}

func startProxy(t *testing.T, s *server) *tamper.Proxy {
	t.Helper()
	p, err := tamper.Start(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestPayloadForeignKey offers 1.1.0's very content, signed by somebody else, from the machine's own server.
func TestPayloadForeignKey(t *testing.T) {
	t.Parallel()
	const version = "1.7.0"
	original := openRelease(t, releasePath(second))
	contents := inspect(t, original.Path(release.Payload))
	foreign := foreignKeys(t).PayloadSigners()
	o := payload.WriteOptions{Image: contents.Image, Timestamp: contents.Timestamp, Signers: foreign, Level: 1}
	o.Image.Version = version
	for _, p := range []struct{ name, file string }{{"root", release.Root}, {"uki", release.UKI}, {"rootsig", release.RootSig}} {
		f, err := os.Open(original.Path(p.file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		part := contents.Partition(p.name)
		o.Partitions = append(o.Partitions, payload.Partition{Name: p.name, Data: f, Size: part.Size, Verity: part.Verity})
	}
	file := filepath.Join(t.TempDir(), release.Payload)
	if _, err := payload.WriteFile(t.Context(), file, o); err != nil {
		t.Fatal(err)
	}
	s := startServer(t)
	s.forge(second, version, file, foreign)
	m := branch(t, ready)
	m.use(s.URL)
	refuses(t, m, s, version, 18, "signature", true)
}

// TestOlderVersionRefused offers a machine with 1.1.0 the genuine payload of 1.0.0 under the name of 1.9.0: an old file, refused before anything is
// written and not held against 1.9.0, which may yet come.
func TestOlderVersionRefused(t *testing.T) {
	t.Parallel()
	const version = "1.9.0"
	s := startServer(t)
	s.forge(first, version, filepath.Join(releasePath(first), release.Payload), imageKeys(t).PayloadSigners())
	m := branch(t, updated)
	m.use(s.URL)
	label := m.run("lsblk -no PARTLABEL /dev/vda3")
	refuses(t, m, s, version, omaha.CodeTransfer, "the payload is of version 1.0.0, but 1.9.0 was announced", true)
	if got := m.run("lsblk -no PARTLABEL /dev/vda3"); got != label || label != "semper_1.0.0" {
		t.Errorf("slot A was %q and is %q", label, got)
	}
	if v := m.status().Version; v != second {
		t.Errorf("version %s runs", v)
	}
	// An older release in the channel is not even offered.
	honest := startServer(t)
	honest.publish(first)
	m.use(honest.URL)
	if out := m.check(); !strings.Contains(out, "no update") {
		t.Errorf("semperctl check says %q", out)
	}
}

// TestTruncatedDownload breaks every connection off in the middle. When that ends the download goes on where it stopped.
func TestTruncatedDownload(t *testing.T) {
	t.Parallel()
	file := filepath.Join(releasePath(second), release.Payload)
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	end := st.Size() / 3
	s := startServer(t)
	s.publish(second)
	proxy := startProxy(t, s)
	proxy.CutAfter(end)
	m := branch(t, ready)
	m.use(proxy.URL, "[reboot]", `strategy = "off"`)
	refuses(t, m, s, second, 9, "the transfer ended", false)
	for _, f := range proxy.Fetches()[1:] {
		if f.From == 0 {
			t.Errorf("the download began anew: %+v", proxy.Fetches())
		}
	}
	tried := len(proxy.Fetches())
	proxy.CutAfter(-1)
	m.check()
	m.waitStatus(func(r agent.Report) bool {
		return r.State == agent.StatePending && r.Pending != nil && r.Pending.Version == second
	})
	if f := proxy.Fetches()[tried]; f.From < end/2 {
		t.Errorf("the download went on at byte %d, after %d had arrived", f.From, end)
	}
}
