package console

import (
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// routes is the console as a server has it.
func routes() http.Handler {
	mux := http.NewServeMux()
	for _, p := range Patterns {
		mux.Handle(p, Handler())
	}
	return mux
}

func get(t *testing.T, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	routes().ServeHTTP(w, r)
	res := w.Result()
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func body(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestViews(t *testing.T) {
	page := body(t, get(t, "/").Body)
	if !strings.Contains(page, `<div id="console">`) {
		t.Fatalf("the page is %s", page)
	}
	for path, status := range map[string]int{
		"/machines": 200, "/machines/0123": 200, "/releases/amd64/1.2.0": 200, "/releases/amd64": 404, "/rollouts/new": 200, "/rollouts/17": 200,
		"/channels": 200, "/reboots": 200, "/people": 200, "/audit": 200, "/sign-in": 200, "/nothing": 404, "/index.html": 404, "/assets/": 404, "/assets/none.js": 404, "/assets/..%2Findex.html": 404,
		"/dist/index.html": 404, "/licences.txt": 200,
	} {
		res := get(t, path)
		got := body(t, res.Body)
		if res.StatusCode != status {
			t.Errorf("%s: status %d, want %d", path, res.StatusCode, status)
		}
		if (got == page) != (status == http.StatusOK && path != "/licences.txt") {
			t.Errorf("%s: %.60s", path, got)
		}
		if p := res.Header.Get("Content-Security-Policy"); status == http.StatusOK && !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", path, res.Header)
		}
	}
}

// maxFirstView is how many bytes a browser loads before it shows something.
const maxFirstView = 200 << 10

// TestFirstView loads what the page names, as a browser does.
func TestFirstView(t *testing.T) {
	res := get(t, "/", "Accept-Encoding", "gzip, br")
	if res.Header.Get("Cache-Control") != "no-cache" || res.Header.Get("Content-Encoding") != "gzip" || res.Header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("headers %v", res.Header)
	}
	packed := body(t, res.Body)
	z, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	page, sum := body(t, z), len(packed)
	if again := get(t, "/", "Accept-Encoding", "gzip", "If-None-Match", res.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("seen before: status %d", again.StatusCode)
	}
	if other := get(t, "/", "If-None-Match", res.Header.Get("ETag")); other.StatusCode != http.StatusOK || other.Header.Get("Content-Encoding") != "" {
		t.Errorf("without gzip: status %d, %v", other.StatusCode, other.Header)
	}
	if plain := get(t, "/", "Accept-Encoding", "gzip;q=0"); plain.Header.Get("Content-Encoding") != "" {
		t.Error("gzip that nobody wants")
	}
	assets := regexp.MustCompile(`"(/assets/[^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(assets) < 3 {
		t.Fatalf("the page names %v", assets)
	}
	for _, a := range assets {
		res := get(t, a[1], "Accept-Encoding", "gzip")
		if res.StatusCode != http.StatusOK || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") || strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: status %d, %v", a[1], res.StatusCode, res.Header)
		}
		sum += len(body(t, res.Body))
	}
	t.Logf("first view: %d bytes", sum)
	if sum > maxFirstView {
		t.Errorf("the first view has %d bytes, at most %d are allowed", sum, maxFirstView)
	}
	if strings.Contains(page, "http:") || strings.Contains(page, "https:") || strings.Contains(page, "<style") || strings.Contains(page, "style=") {
		t.Errorf("the page is %s", page)
	}
}

// TestDistIsCurrent builds the console again and compares.
func TestDistIsCurrent(t *testing.T) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Fatal("npm is missing, which 'make packages' installs: ", err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "web"), sources{os.DirFS("web")}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ci", "--ignore-scripts", "--no-audit", "--no-fund"}, {"run", "check"}, {"run", "build"}} {
		c := exec.CommandContext(t.Context(), npm, args...)
		c.Dir = filepath.Join(dir, "web")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("npm %v: %v\n%s", args, err, out)
		}
	}
	made, checked := tree(t, os.DirFS(filepath.Join(dir, "dist"))), tree(t, os.DirFS("dist"))
	for name, content := range made {
		if checked[name] != content {
			t.Errorf("dist/%s is not what the sources make: run 'make console'", name)
		}
	}
	for name := range checked {
		if _, ok := made[name]; !ok {
			t.Errorf("dist/%s is nothing that the sources make: run 'make console'", name)
		}
	}
}

// sources are a folder without what npm put there.
type sources struct{ fs.FS }

func (s sources) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(s.FS, name)
	var out []fs.DirEntry
	for _, e := range entries {
		if e.Name() != "node_modules" {
			out = append(out, e)
		}
	}
	return out, err
}

func tree(t *testing.T, from fs.FS) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(from, name)
		out[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
