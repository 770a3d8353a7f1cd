package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// TestPublishScripts runs the scripts of testdata/publish against a real server ($SERVER). In each script's folder there are the
// releases semper-1.1.0 in releases/ and, with other content and by another key, in other/; the first key as payload.pem and in the folder keys/; and tokens.
func TestPublishScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/publish", Setup: func(e *testscript.Env) error {
		data := filepath.Join(e.WorkDir, "data")
		s, err := server.Open(context.Background(), server.Config{Dir: data})
		if err != nil {
			return err
		}
		hs := httptest.NewServer(s.Handler())
		e.Defer(func() {
			hs.Close()
			s.Close()
		})
		e.Setenv("SERVER", hs.URL)
		key, err := writeTestRelease(filepath.Join(e.WorkDir, "releases"), "payload ")
		if err != nil {
			return err
		}
		if _, err := writeTestRelease(filepath.Join(e.WorkDir, "other"), "another "); err != nil {
			return err
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return err
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(e.WorkDir, "keys"), 0o700); err != nil {
			return err
		}
		public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		token, err := os.ReadFile(filepath.Join(data, server.TokenFile))
		if err != nil {
			return err
		}
		viewer, err := newTestToken(data, fleet.Viewer)
		if err != nil {
			return err
		}
		for name, content := range map[string]string{
			"payload.pem":        public,
			"keys/payload-1.pem": public,
			"keys/payload-1.key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
			"keys/trust.toml":    "threshold = 1\n",
			"token":              string(token),
			"wrong-token":        strings.TrimSpace(string(token)) + "x\n",
			"viewer-token":       viewer,
		} {
			if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(content), 0o600); err != nil {
				return err
			}
		}
		return nil
	}})
}

// writeTestRelease makes the release semper-1.1.0 below out, signed by a new key.
func writeTestRelease(out, content string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	w, err := release.NewWriter(out, "semper", "1.1.0")
	if err != nil {
		return nil, err
	}
	for name, data := range map[string][]byte{
		release.Payload: bytes.Repeat([]byte(content), 102400), release.UKI: []byte("uki"), release.Packages: []byte(packagesLock),
	} {
		if err := w.WriteFile(name, data); err != nil {
			return nil, err
		}
	}
	_, err = w.Commit(context.Background(), release.Manifest{
		Name: "semper", Version: "1.1.0", Architecture: "amd64", RootHash: strings.Repeat("ab", 32), PackagesSHA256: strings.Repeat("cd", 32),
		SourceDateEpoch: 1_700_000_000,
	}, release.CommitOptions{Signers: []crypto.Signer{key}})
	return key, err
}

func newTestToken(data string, role fleet.Role) (token string, err error) {
	ctx := context.Background()
	s, err := store.Open(ctx, data) // beside the server, as semper-server's verbs do it
	if err != nil {
		return "", err
	}
	defer s.Close()
	err = s.Write(ctx, func(tx store.Tx) error {
		token, err = server.NewToken(ctx, tx, rand.Reader, role, "test", "test", time.Now())
		return err
	})
	return token, err
}

// packagesLock is as short as the list of an image's packages can be.
const packagesLock = `{"format":"semper lock 1","suite":"trixie","architecture":"amd64","components":["main"]}
{"release":"trixie","date":"2026-11-21T09:15:44Z"}
{"package":"linux-image","version":"6.12","architecture":"amd64","groups":["kernel"],"size":100,"sha256":"57dee9124ac6c57b75a8aed09052245942027dd46649d3d02285c35c11cfd000","archive":"debian","path":"pool/linux-image.deb"}
`
