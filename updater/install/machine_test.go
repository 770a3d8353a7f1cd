package install

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/wire"
)

// place writes files below a fresh root.
func place(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func publicKey(t *testing.T, curve elliptic.Curve) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func certificate(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestLoadTrust(t *testing.T) {
	got, err := LoadTrust(place(t, map[string]string{
		keyFolder + "/a.pem":     publicKey(t, elliptic.P256()),
		keyFolder + "/b.pem":     publicKey(t, elliptic.P256()) + publicKey(t, elliptic.P256()),
		keyFolder + "/README.md": "not a key",
		trustFile:                "threshold = 2\n",
		verityCert:               certificate(t) + certificate(t),
	}))
	if err != nil || len(got.Payload.Keys) != 3 || got.Payload.Threshold != 2 || len(got.Verity) != 2 {
		t.Errorf("%d keys, threshold %d, %d certificates, %v", len(got.Payload.Keys), got.Payload.Threshold, len(got.Verity), err)
	}
}

func TestLoadTrustFailsClosed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(map[string]string)
		want   string
	}{
		"no key":             {func(f map[string]string) { delete(f, keyFolder+"/a.pem") }, "trusts no payload key"},
		"not a key":          {func(f map[string]string) { f[keyFolder+"/b.pem"] = "hello" }, "b.pem"},
		"weak key":           {func(f map[string]string) { f[keyFolder+"/b.pem"] = publicKey(t, elliptic.P224()) }, "b.pem"},
		"private key":        {func(f map[string]string) { f[keyFolder+"/b.pem"] = certificate(t) }, "b.pem"},
		"huge key":           {func(f map[string]string) { f[keyFolder+"/b.pem"] = strings.Repeat("#", maxKeyFile+1) }, "at most 65536 are read"},
		"no threshold file":  {func(f map[string]string) { delete(f, trustFile) }, "trust.toml"},
		"threshold missing":  {func(f map[string]string) { f[trustFile] = "" }, "threshold is 0"},
		"threshold zero":     {func(f map[string]string) { f[trustFile] = "threshold = 0" }, "threshold is 0"},
		"threshold negative": {func(f map[string]string) { f[trustFile] = "threshold = -1" }, "threshold is -1"},
		"threshold in words": {func(f map[string]string) { f[trustFile] = "threshold = 'one'" }, "trust.toml"},
		"unknown key":        {func(f map[string]string) { f[trustFile] = "threshold = 1\ntreshold = 2" }, "trust.toml"},
		"empty certificate":  {func(f map[string]string) { f[verityCert] = "" }, "no certificate"},
		"broken certificate": {func(f map[string]string) {
			f[verityCert] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
		}, "verity.crt"},
		"key, no certificate": {func(f map[string]string) { f[verityCert] = publicKey(t, elliptic.P256()) }, "verity.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{keyFolder + "/a.pem": publicKey(t, elliptic.P256()), trustFile: "threshold = 1\n"}
			c.change(files)
			got, err := LoadTrust(place(t, files))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if len(got.Payload.Keys) != 0 {
				t.Error("keys were returned beside the error")
			}
		})
	}
}

const release = "ID=semper\nIMAGE_ID=semper\nIMAGE_VERSION=\"1.2.0\"\n# comment\nSEMPER_EPOCH=3\nPRETTY_NAME='Semper OS'\n"

// Files of the kernel, and what they say of a root that semper-init mounted.
const (
	cmdline   = "proc/cmdline"
	mountinfo = "proc/self/mountinfo"
	rootUUID  = "sys/dev/block/253:0/dm/uuid"
	bare      = "23 1 253:0 / / ro,relatime - erofs /dev/dm-0 ro\n24 23 0:6 / /dev rw - devtmpfs devtmpfs rw\n"
)

func TestReadMachine(t *testing.T) {
	hash := strings.Repeat("4f", 32)
	files := map[string]string{
		cmdline:          "initrd=x roothash=" + hash + " ro quiet\n",
		mountinfo:        bare,
		bootIDPath:       "0b5d9a5e-0000-4000-8000-000000000001\n",
		releasePath:      release,
		"etc/os-release": "IMAGE_ID=semper\nIMAGE_VERSION=0.0.1\nSEMPER_EPOCH=0\n", // an overlay must not matter
	}
	got, err := ReadMachine(place(t, files))
	if err != nil {
		t.Fatal(err)
	}
	want := Machine{
		RootHash: [32]byte(bytes.Repeat([]byte{0x4f}, 32)),
		Image:    payload.Image{ID: "semper", Version: "1.2.0", Epoch: 3, Architecture: "amd64"},
		BootID:   "0b5d9a5e-0000-4000-8000-000000000001",
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for name, c := range map[string]struct{ file, text, want string }{
		"no root hash":    {cmdline, "ro quiet", "roothash"},
		"no version":      {releasePath, "IMAGE_ID=semper\nSEMPER_EPOCH=0\n", "IMAGE_VERSION"},
		"no image":        {releasePath, "IMAGE_VERSION=1\nSEMPER_EPOCH=0\n", "IMAGE_ID"},
		"no epoch":        {releasePath, "IMAGE_ID=semper\nIMAGE_VERSION=1\n", "SEMPER_EPOCH"},
		"negative epoch":  {releasePath, "IMAGE_ID=semper\nIMAGE_VERSION=1\nSEMPER_EPOCH=-1\n", "SEMPER_EPOCH"},
		"version of path": {releasePath, "IMAGE_ID=semper\nIMAGE_VERSION=../1\nSEMPER_EPOCH=0\n", "IMAGE_VERSION"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := map[string]string{}
			for k, v := range files {
				changed[k] = v
			}
			changed[c.file] = c.text
			if _, err := ReadMachine(place(t, changed)); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// After a soft-reboot the kernel's command line names the root that was left.
func TestReadMachineAfterSoftReboot(t *testing.T) {
	booted, hash := strings.Repeat("4f", 32), strings.Repeat("5e", 32)
	info := func(hash, soft string) string {
		return `{"schema":1,"disk":"/dev/vda","partitions":{"root":"/dev/vda6","verity":"/dev/vda7","verity_sig":"/dev/vda8","var":"/dev/vda9"},
			"slot":"b","version":"1.2.0","root_hash":"` + hash + `"` + soft + `}`
	}
	const soft, boot = `,"soft_reboot":{"count":2,"kernel_version":"1.0.0","kernel_slot":"a"}`, "run/semper/boot.json"
	files := map[string]string{
		cmdline: "roothash=" + booted, mountinfo: bare, rootUUID: "CRYPT-VERITY-" + strings.Repeat("0", 32) + "-root_" + hash + "\n",
		bootIDPath: "0b5d\n", releasePath: release, boot: info(hash, soft),
	}
	got, err := ReadMachine(place(t, files))
	if err != nil {
		t.Fatal(err)
	}
	if got.RootHash != [32]byte(bytes.Repeat([]byte{0x5e}, 32)) || got.BootID != "0b5d+2" || got.Soft == nil || *got.Soft != (wire.Soft{Count: 2, Version: "1.0.0", Slot: "A"}) {
		t.Errorf("got %+v, soft %+v", got, got.Soft)
	}
	for name, c := range map[string]struct{ text, want string }{
		"no boot.json":        {"", "after a soft-reboot"},
		"boot.json of a boot": {info(booted, ""), "knows of no soft-reboot"},
		"a count of none":     {info(hash, `,"soft_reboot":{"count":0,"kernel_version":"1.0.0","kernel_slot":"a"}`), "after a soft-reboot"},
	} {
		files[boot] = c.text
		if got, err := ReadMachine(place(t, files)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, error %v, want one with %q", name, got, err, c.want)
		}
	}
	// One that led to where it began.
	files[rootUUID], files[boot] = "CRYPT-VERITY-"+strings.Repeat("0", 32)+"-root\n", info(booted, soft)
	if got, err := ReadMachine(place(t, files)); err != nil || got.RootHash != [32]byte(bytes.Repeat([]byte{0x4f}, 32)) || got.BootID != "0b5d+2" {
		t.Errorf("in place: %+v, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{dbus.Error{Name: "org.freedesktop.DBus.Error.AccessDenied"}, true},
		{fmt.Errorf("ask: %w", dbus.Error{Name: "org.freedesktop.login1.OperationInProgress"}), true},
		{dbus.Error{Name: "org.freedesktop.DBus.Error.NoReply"}, false},
		{context.DeadlineExceeded, false},
		{dbus.ErrClosed, false},
	} {
		if got := refused(fault.New(fault.IO, "reboot: ask logind: %w", c.err)); got != c.want {
			t.Errorf("%v: refused %v, want %v", c.err, got, c.want)
		}
	}
}

func TestHolders(t *testing.T) {
	blocks := place(t, map[string]string{"vda3/holders/dm-0": "", "vda4/holders/dm-0": "", "vda4/holders/dm-1": "", "vda5/size": "8"})
	if err := os.Mkdir(filepath.Join(blocks, "vda5/holders"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := holders(blocks, "/dev/vda3", "/dev/vda4", "/dev/vda5", ""); err != nil || strings.Join(got, " ") != "dm-0 dm-1" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := holders(blocks, "/dev/vda5"); err != nil || len(got) != 0 {
		t.Errorf("nobody: %q, %v", got, err)
	}
	if got, err := holders(blocks, "/dev/vda6"); !fault.Is(err, fault.IO) {
		t.Errorf("not known: %q, %v", got, err)
	}
}

func FuzzParseRelease(f *testing.F) {
	f.Add(release)
	f.Add("IMAGE_ID=a\nIMAGE_VERSION=1\nSEMPER_EPOCH=18446744073709551616")
	f.Fuzz(func(t *testing.T, text string) {
		if image, err := parseRelease(text); err == nil && (image.ID == "" || image.Version == "") {
			t.Fatalf("accepted %+v", image)
		}
	})
}
