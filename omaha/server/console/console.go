// Package console is the web console of the update server: one page that shows everything by the REST interface (package api), as a browser's client of it. It has no rights of its own.
//
//	/, /machines, /rollouts/3, …     the page, the same for each view: which one it is the page reads from its address
//	/assets/NAME-HASH.EXT            what the page needs; the content behind a name never changes
//
// The sources are in web/ (TypeScript, Preact, uPlot), what is made of them in dist/, which is checked in and embedded: programs are built with Go alone. 'make console' makes dist/ anew,
// with the same bytes from the same sources; a test does too, and compares.
//
// Nothing is loaded from anywhere else, and the page's policy lets no script run that is not a file of ours.
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed dist
var files embed.FS

// policy is the page's Content-Security-Policy.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'"

// Patterns are the routes that Handler answers, as net/http has them: every view, and what the page needs.
var Patterns = []string{
	"GET /{$}", "GET /machines", "GET /machines/{id}", "GET /releases", "GET /releases/{arch}/{version}", "GET /rollouts", "GET /rollouts/{id}", "GET /channels", "GET /reboots", "GET /people",
	"GET /audit", "GET /sign-in", "GET /assets/{name}", "GET /licences.txt",
}

// file is one of dist/ as it is sent.
type file struct {
	content, packed []byte // packed is gzip's, nil where it saves nothing
	kind            string // its media type
	tag             string // of its content
}

var all = sync.OnceValues(func() (map[string]*file, error) {
	out := map[string]*file{}
	err := fs.WalkDir(files, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		f := &file{content: content, kind: mime.TypeByExtension(path.Ext(name))}
		switch path.Ext(name) { // whatever the machine thinks of these
		case ".js":
			f.kind = "text/javascript; charset=utf-8"
		case ".css":
			f.kind = "text/css; charset=utf-8"
		case ".svg":
			f.kind = "image/svg+xml"
		}
		sum := sha256.Sum256(content)
		f.tag = `"` + hex.EncodeToString(sum[:8]) + `"`
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		if packed.Len() < len(content) {
			f.packed = packed.Bytes()
		}
		out[strings.TrimPrefix(name, "dist/")] = f
		return nil
	})
	return out, err
})

// Handler serves the console.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		built, err := all()
		if err != nil {
			http.Error(w, "the console cannot be read", http.StatusInternalServerError)
			return
		}
		name := "index.html"
		switch asset, below := strings.CutPrefix(r.URL.Path, "/assets/"); {
		case below:
			name = "assets/" + asset
		case r.URL.Path == "/licences.txt":
			name = "licences.txt"
		}
		f := built[name]
		if f == nil {
			http.Error(w, "there is no such file: the console begins at /", http.StatusNotFound)
			return
		}
		f.send(w, r, strings.HasPrefix(name, "assets/"))
	})
}

// send answers with the file; where its name goes with its content, for good.
func (f *file) send(w http.ResponseWriter, r *http.Request, forGood bool) {
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", f.tag)
	h.Set("Cache-Control", "no-cache")
	if forGood {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	content := f.content
	if f.packed != nil && takesGzip(r.Header.Get("Accept-Encoding")) {
		content = f.packed
		h.Set("Content-Encoding", "gzip")
		h.Set("ETag", fmt.Sprintf(`"%s-gzip"`, strings.Trim(f.tag, `"`)))
	}
	if match := r.Header.Get("If-None-Match"); match != "" && strings.Contains(match, h.Get("ETag")) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(content)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(content) // whoever left does not miss it
	}
}

// takesGzip reports whether a list of encodings has gzip, and not with the weight 0.
func takesGzip(accepted string) bool {
	for one := range strings.SplitSeq(accepted, ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(one), ";")
		if strings.TrimSpace(name) != "gzip" {
			continue
		}
		text, weighted := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
		q, err := strconv.ParseFloat(text, 64)
		return !weighted || err == nil && q > 0
	}
	return false
}
