package debs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/fault"
)

// locked is a package of the lock with these bytes.
func locked(name string, content []byte) lock.Package {
	return lock.Package{
		Name: name, Version: "1.0", Architecture: "amd64", Groups: []lock.Group{lock.Image}, Size: int64(len(content)),
		SHA256: fmt.Sprintf("%x", sha256.Sum256(content)), Archive: lock.Debian, Path: "pool/main/" + name + "/" + name + "_1.0_amd64.deb",
	}
}

// content is some bytes that no two packages share; more than the buffers on the way take.
func content(name string) []byte {
	return []byte(strings.Repeat(name+" is made of this. ", 20000))
}

// mirror serves packages on the loopback interface; answer may take a request over, and says whether it did.
type mirror struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string // "GET path Range"
}

func newMirror(t *testing.T, packages map[string][]byte, answer func(w http.ResponseWriter, r *http.Request, n int) bool) *mirror {
	t.Helper()
	m := &mirror{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.requests = append(m.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
		n := len(m.requests)
		m.mu.Unlock()
		if answer != nil && answer(w, r, n) {
			return
		}
		data, ok := packages[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) log() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.requests...)
}

func (m *mirror) fetcher() *Fetcher {
	f := NewFetcher(lock.Mirrors{Debian: m.URL + "/debian", Security: m.URL + "/security", Proxies: map[string]string{"http": "DIRECT"}})
	f.backOff = time.Millisecond
	return f
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// complete checks that the store has the package, and nothing unfinished.
func complete(t *testing.T, s *Store, p lock.Package, want []byte) {
	t.Helper()
	got, err := os.ReadFile(s.Path(p))
	if err != nil || string(got) != string(want) {
		t.Errorf("%s: %d bytes in the store (%v), want %d", p.Name, len(got), err, len(want))
	}
	if _, err := os.Stat(s.base(p) + ".part"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: something unfinished is left: %v", p.Name, err)
	}
}

func absent(t *testing.T, s *Store, p lock.Package) {
	t.Helper()
	if _, err := os.Stat(s.Path(p)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is in the store: %v", p.Name, err)
	}
}

func TestFill(t *testing.T) {
	files := map[string][]byte{}
	var packages []lock.Package
	for i := range 20 {
		p := locked(fmt.Sprintf("lib%d++", i), content(fmt.Sprint(i)))
		if i%2 == 1 {
			p.Archive = lock.Security
			files["/security/"+p.Path] = content(fmt.Sprint(i))
		} else {
			files["/debian/"+p.Path] = content(fmt.Sprint(i))
		}
		packages = append(packages, p)
	}
	m := newMirror(t, files, nil)
	s := open(t)
	if err := s.Fill(t.Context(), packages, m.fetcher(), nil); err != nil {
		t.Fatal(err)
	}
	for i, p := range packages {
		complete(t, s, p, content(fmt.Sprint(i)))
	}
	if n := len(m.log()); n != len(packages) {
		t.Errorf("%d requests for %d packages", n, len(packages))
	}
	// What is there is not fetched again, unless it was damaged, be it with the same length.
	damaged := append([]byte(nil), content("7")...)
	damaged[1000] ^= 1
	for i, data := range map[int][]byte{3: content("3")[:100], 7: damaged} {
		if err := os.WriteFile(s.Path(packages[i]), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Fill(t.Context(), packages, m.fetcher(), nil); err != nil {
		t.Fatal(err)
	}
	complete(t, s, packages[3], content("3"))
	complete(t, s, packages[7], content("7"))
	if n := len(m.log()); n != len(packages)+2 {
		t.Errorf("%d requests after the repair of two packages, want %d", n, len(packages)+2)
	}
}

func TestFillFromFolder(t *testing.T) {
	dir := t.TempDir()
	p := locked("hello", content("hello"))
	path := filepath.Join(dir, "a b", p.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"file:", "copy:", "file://"} {
		s := open(t)
		f := NewFetcher(lock.Mirrors{Debian: scheme + dir + "/a%20b"})
		f.backOff = time.Millisecond
		if err := s.Fill(t.Context(), []lock.Package{p}, f, nil); err != nil {
			t.Errorf("%s: %v", scheme, err)
			continue
		}
		complete(t, s, p, content("hello"))
		missing := locked("other", content("other"))
		if err := s.Fill(t.Context(), []lock.Package{missing}, f, nil); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "package other 1.0: the mirror does not have this version") {
			t.Errorf("%s: missing file: %v", scheme, err)
		}
	}
}

func TestMirrorFails(t *testing.T) {
	good := content("hello")
	p := locked("hello", good)
	path := "/debian/" + p.Path
	other := append([]byte(nil), good...)
	other[len(other)-1] ^= 1
	reply := func(code int) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.WriteHeader(code)
			return true
		}
	}
	for _, c := range []struct {
		name     string
		served   []byte
		answer   func(http.ResponseWriter, *http.Request, int) bool
		kind     fault.Kind
		want     string
		requests int
	}{
		{"not found", nil, nil, fault.Network, "404 Not Found: the mirror does not have this version (any more): run 'semper lock' for today's versions", 1},
		{"forbidden", good, reply(http.StatusForbidden), fault.Network, "403 Forbidden", 1},
		{"broken", good, reply(http.StatusBadGateway), fault.Network, "502 Bad Gateway (tried 5 times)", attempts},
		{"other bytes", other, nil, fault.Verification, fmt.Sprintf("has the wrong SHA-256: expected %s, got %x", p.SHA256, sha256.Sum256(other)), 2},
		{"more bytes", append(append([]byte(nil), good...), 'x'), nil, fault.Verification, fmt.Sprintf("is larger than the %d bytes that the lock names", len(good)), 1},
		{"fewer bytes", good[:1000], nil, fault.Network, "(tried 5 times)", attempts},
		{"hangs up", good, func(http.ResponseWriter, *http.Request, int) bool { panic(http.ErrAbortHandler) }, fault.Network, "(tried 5 times)", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string][]byte{}
			if c.served != nil {
				files[path] = c.served
			}
			m := newMirror(t, files, c.answer)
			s := open(t)
			err := s.Fill(t.Context(), []lock.Package{p}, m.fetcher(), nil)
			if err == nil || !strings.HasPrefix(err.Error(), "package hello 1.0: ") || !strings.Contains(err.Error(), c.want) || !fault.Is(err, c.kind) {
				t.Errorf("got  %v (%s)\nwant %s (%s)", err, fault.KindOf(err), c.want, c.kind)
			}
			if n := len(m.log()); c.requests > 0 && n != c.requests {
				t.Errorf("%d requests, want %d: %v", n, c.requests, m.log())
			}
			absent(t, s, p)
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		m := newMirror(t, nil, nil)
		f := m.fetcher()
		m.Close()
		if err := open(t).Fill(t.Context(), []lock.Package{p}, f, nil); !fault.Is(err, fault.Network) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v (%s)", err, fault.KindOf(err))
		}
	})
}

// A mirror that fails for a while costs attempts, not the build, and no byte twice where it can continue.
func TestMirrorRecovers(t *testing.T) {
	good := content("hello")
	p := locked("hello", good)
	path := "/debian/" + p.Path
	half := len(good) / 2
	breakOff := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", strconv.Itoa(len(good)))
		_, _ = w.Write(good[:half])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request, n int) bool
		want   []string
	}{
		{"once unavailable", func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return n == 1
		}, []string{"GET " + path, "GET " + path}},
		{"breaks off", func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 1 {
				breakOff(w)
			}
			return false
		}, []string{"GET " + path, fmt.Sprintf("GET %s bytes=%d-", path, half)}},
		{"breaks off, and knows no ranges", func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 1 {
				breakOff(w)
			}
			r.Header.Del("Range")
			return false
		}, []string{"GET " + path, fmt.Sprintf("GET %s bytes=%d-", path, half)}},
		{"breaks off, and sends another range", func(w http.ResponseWriter, _ *http.Request, n int) bool {
			switch n {
			case 1:
				breakOff(w)
			case 2:
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-9/%d", len(good)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(good[:10])
				return true
			}
			return false
		}, []string{"GET " + path, fmt.Sprintf("GET %s bytes=%d-", path, half), "GET " + path}},
		{"once wrong bytes", func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 1 {
				_, _ = w.Write(append([]byte{'X'}, good[1:]...))
			}
			return n == 1
		}, []string{"GET " + path, "GET " + path}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMirror(t, map[string][]byte{path: good}, c.answer)
			s := open(t)
			if err := s.Fill(t.Context(), []lock.Package{p}, m.fetcher(), nil); err != nil {
				t.Fatal(err)
			}
			complete(t, s, p, good)
			if got := m.log(); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("requests %q, want %q", got, c.want)
			}
		})
	}
}

// A mirror that stops in the middle without hanging up must be left.
func TestMirrorStalls(t *testing.T) {
	good := content("hello")
	p := locked("hello", good)
	path := "/debian/" + p.Path
	m := newMirror(t, map[string][]byte{path: good}, func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n > 1 {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(good)))
		_, _ = w.Write(good[:1000])
		w.(http.Flusher).Flush()
		<-r.Context().Done() // the client has left
		return true
	})
	s := open(t)
	f := m.fetcher()
	f.stall = 50 * time.Millisecond
	if err := s.Fill(t.Context(), []lock.Package{p}, f, nil); err != nil {
		t.Fatal(err)
	}
	complete(t, s, p, good)
	if got := m.log(); len(got) != 2 || got[1] != "GET "+path+" bytes=1000-" {
		t.Errorf("requests %q", got)
	}
}

// What an earlier run left unfinished is continued; what is damaged in it is found out by the hash.
func TestContinues(t *testing.T) {
	good := content("hello")
	p := locked("hello", good)
	path := "/debian/" + p.Path
	whole := "GET " + path
	for _, c := range []struct {
		name string
		left []byte
		want []string
	}{
		{"a part", good[:5000], []string{whole + " bytes=5000-"}},
		{"all", good, nil},
		{"more than all", append(append([]byte(nil), good...), "xx"...), []string{whole}},
		{"a damaged part", append([]byte("XX"), good[2:5000]...), []string{whole + " bytes=5000-", whole}},
		{"nothing", nil, []string{whole}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMirror(t, map[string][]byte{path: good}, nil)
			s := open(t)
			if err := os.MkdirAll(filepath.Dir(s.base(p)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.base(p)+".part", c.left, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := s.Fill(t.Context(), []lock.Package{p}, m.fetcher(), nil); err != nil {
				t.Fatal(err)
			}
			complete(t, s, p, good)
			if got := m.log(); strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("requests %q, want %q", got, c.want)
			}
		})
	}
}

// Builds that share a store fetch each package once, together.
func TestConcurrentFills(t *testing.T) {
	files := map[string][]byte{}
	var packages []lock.Package
	for i := range 10 {
		p := locked(fmt.Sprint("p", i), content(fmt.Sprint(i)))
		files["/debian/"+p.Path] = content(fmt.Sprint(i))
		packages = append(packages, p)
	}
	m := newMirror(t, files, nil)
	dir := t.TempDir()
	var group sync.WaitGroup
	var failed atomic.Int32
	for range 4 {
		group.Go(func() {
			s, err := Open(dir)
			if err == nil {
				err = s.Fill(t.Context(), packages, m.fetcher(), nil)
			}
			if err != nil {
				t.Error(err)
				failed.Add(1)
			}
		})
	}
	group.Wait()
	if failed.Load() > 0 {
		return
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range packages {
		complete(t, s, p, content(fmt.Sprint(i)))
	}
	if n := len(m.log()); n != len(packages) {
		t.Errorf("%d requests for %d packages", n, len(packages))
	}
}

func TestCancel(t *testing.T) {
	p := locked("hello", content("hello"))
	ctx, cancel := context.WithCancel(t.Context())
	m := newMirror(t, nil, func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		cancel()
		<-r.Context().Done()
		return true
	})
	s := open(t)
	if err := s.Fill(ctx, []lock.Package{p}, m.fetcher(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	absent(t, s, p)
}

func TestDiskFull(t *testing.T) {
	var packages []lock.Package
	for i := range 4096 { // 16 TiB: what no build machine has free
		p := locked(fmt.Sprint("p", i), []byte{byte(i), byte(i >> 8)})
		p.Size = 4 << 30
		packages = append(packages, p)
	}
	m := newMirror(t, nil, nil)
	err := open(t).Fill(t.Context(), packages, m.fetcher(), nil)
	if err == nil || !strings.Contains(err.Error(), "disk full: 16384.00 GiB are needed, ") || !fault.Is(err, fault.IO) {
		t.Errorf("got %v (%s)", err, fault.KindOf(err))
	}
	if len(m.log()) > 0 {
		t.Error("a download was begun that cannot end")
	}
	err = storeError(&os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC})
	if err.Error() != "package store: disk full: write x: no space left on device" || !fault.Is(err, fault.IO) {
		t.Errorf("got %v (%s)", err, fault.KindOf(err))
	}
}

func TestProxies(t *testing.T) {
	p := locked("hello", content("hello"))
	proxy := newMirror(t, map[string][]byte{"/debian/" + p.Path: content("hello")}, nil)
	f := NewFetcher(lock.Mirrors{Debian: "http://mirror.example/debian", Proxies: map[string]string{"http": proxy.URL}})
	s := open(t)
	if err := s.Fill(t.Context(), []lock.Package{p}, f, nil); err != nil {
		t.Fatal(err)
	}
	complete(t, s, p, content("hello"))

	request := &http.Request{URL: &url.URL{Scheme: "http", Host: "mirror.example"}}
	for setting, want := range map[string]string{"DIRECT": "<nil>", "http://p.example:1": "http://p.example:1"} {
		u, err := proxyFor(lock.Mirrors{Proxies: map[string]string{"http": setting}})(request)
		if got := fmt.Sprint(u); err != nil || got != want {
			t.Errorf("proxy %q gives %s, %v", setting, got, err)
		}
	}
}
