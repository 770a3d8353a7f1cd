// Package keystest makes keys for tests: the same files as package keys, made by Options.Fast so that they are there in a moment.
package keystest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/builder/keys"
)

// First is the first day of the test certificates.
var First = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)

// Each set is made once a process and copied to every test that wants it.
var sets sync.Map // name -> func() (map[string][]byte, error)

// Dir returns a new folder with keys; it goes away with the test. Sets with different names have different keys.
func Dir(t testing.TB, set string) string {
	t.Helper()
	once, _ := sets.LoadOrStore(set, sync.OnceValues(func() (map[string][]byte, error) { return create(set) }))
	files, err := once.(func() (map[string][]byte, error))()
	if err != nil {
		t.Fatalf("make test keys: %v", err)
	}
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Load returns the keys of a set.
func Load(t testing.TB, set string) *keys.Keys {
	t.Helper()
	k, err := keys.Load(Dir(t, set))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func create(set string) (map[string][]byte, error) {
	temp, err := os.MkdirTemp("", "keystest-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	dir := filepath.Join(temp, "keys")
	made, err := keys.New(context.Background(), dir, keys.Options{
		Name: "Test " + set,
		Now:  First,
		Rand: bytes.NewReader(bytes.Repeat([]byte(set+"."), 1<<16)), // only serial numbers come from it
		Fast: true,
	})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, f := range made {
		if files[filepath.Base(f.Path)], err = os.ReadFile(f.Path); err != nil {
			return nil, err
		}
	}
	return files, nil
}
