package server

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/payload/detached"
)

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// signedPayload is a real payload of a version.
func signedPayload(t *testing.T, version string, signer crypto.Signer) []byte {
	t.Helper()
	root := bytes.Repeat([]byte{7}, 64<<10)
	path := filepath.Join(t.TempDir(), "full.crau")
	_, err := payload.WriteFile(t.Context(), path, payload.WriteOptions{
		Image: payload.Image{ID: "semper", Version: version, Architecture: "amd64"}, Timestamp: time.Unix(1, 0),
		Partitions: []payload.Partition{{Name: "root", Data: bytes.NewReader(root), Size: int64(len(root))}}, Signers: []crypto.Signer{signer},
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A server that has keys takes what these have signed, manifest and payload, and offers nothing else.
func TestVerifies(t *testing.T) {
	key, stranger := newKey(t), newKey(t)
	f := serve(t, t.TempDir(), Config{Trust: payload.Trust{Keys: []crypto.PublicKey{key.Public()}, Threshold: 1}})
	c, err := client.NewClient(f.http.URL, f.token)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name       string
		payload    []byte
		manifestBy crypto.Signer
		change     func(r *api.NewRelease)
		status     int
		want       string
	}{
		{"payload of a stranger", signedPayload(t, "1.1.0", stranger), key, nil, 422, "the payload: "},
		{"no payload", payloadOf("1.1.0"), key, nil, 422, "the payload: "},
		{"manifest of a stranger", signedPayload(t, "1.1.0", key), stranger, nil, 422, "the manifest: "},
		{"another version's payload", signedPayload(t, "1.2.0", key), key, nil, 422, "the payload is of version 1.2.0"},
		{"manifest changed", signedPayload(t, "1.1.0", key), key, func(r *api.NewRelease) { r.Manifest = append(r.Manifest, ' ') }, 422, "the manifest: "},
		{"no signature", signedPayload(t, "1.1.0", key), key, func(r *api.NewRelease) { r.Signature = []byte("sig") }, 422, "signature is not JSON"},
		{"no signatures", signedPayload(t, "1.1.0", key), key, func(r *api.NewRelease) { r.Signature = []byte("[]") }, 422, "the manifest: "},
		{"good", signedPayload(t, "1.1.0", key), key, nil, 200, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			sum := sha256.Sum256(test.payload)
			file := api.File{Name: "full.crau", Size: int64(len(test.payload)), SHA256: hex.EncodeToString(sum[:])}
			if _, err := c.Upload(t.Context(), file, bytes.NewReader(test.payload), nil); err != nil {
				t.Fatal(err)
			}
			m := manifestOf("1.1.0", "amd64", file)
			list, err := detached.Sign(m, []crypto.Signer{test.manifestBy})
			if err != nil {
				t.Fatal(err)
			}
			r := api.NewRelease{Manifest: m, Signature: mustJSON(t, list)}
			if test.change != nil {
				test.change(&r)
			}
			status, _, body := f.do("PUT", "/api/v1/releases/1.1.0", string(mustJSON(t, r)), "Authorization", "Bearer "+f.token)
			if status != test.status || !strings.Contains(body, test.want) {
				t.Errorf("status %d, want %d with %q: %s", status, test.status, test.want, body)
			}
			// What was refused is not served either.
			want := 404
			if test.status == 200 {
				want = 200
			}
			if status, _, _ := f.do("GET", "/payloads/"+file.SHA256+"/full.crau", ""); status != want {
				t.Errorf("the payload: status %d, want %d", status, want)
			}
		})
	}
	external := api.NewRelease{External: &api.External{URLs: []string{"https://x.example/"}, Name: "x", Size: 1, SHA256: strings.Repeat("0", 64), SHA1: strings.Repeat("0", 40)}}
	if status, _, body := f.do("PUT", "/api/v1/releases/1.3.0", string(mustJSON(t, external)), "Authorization", "Bearer "+f.token); status != 400 || !strings.Contains(body, "cannot be") {
		t.Errorf("a release that is somewhere else: status %d: %s", status, body)
	}
}
