package lock

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

const (
	format      = "semper lock 1"
	maxBytes    = 16 << 20
	maxPackages = 16384
	maxWants    = 16384
	maxReleases = 16
	maxDeb      = 4 << 30
)

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,127}$`)
	versionForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~:-]{0,127}$`)
	wordForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9/-]{0,63}$`)
	pathForm    = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~:%_/-]{0,509}\.deb$`)
)

type header struct {
	Format       string   `json:"format"`
	Suite        string   `json:"suite"`
	Architecture string   `json:"architecture"`
	Components   []string `json:"components"`
}

// Encode returns the lock's bytes. Equal locks have equal bytes.
func (l *Lock) Encode() []byte {
	var b bytes.Buffer
	b.Write(line(header{format, l.Suite, l.Architecture, l.Components}))
	for _, r := range l.Releases {
		b.Write(line(r))
	}
	for _, w := range l.Wants {
		b.Write(line(w))
	}
	for _, p := range l.Packages {
		b.Write(line(p))
	}
	return b.Bytes()
}

func line(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil { // impossible for the four types of line: strings, numbers and dates of four-digit years
		panic(err)
	}
	return b.Bytes()
}

// decodeLine reads one line into v, and refuses any other spelling of the same value, so that a lock has one form only.
func decodeLine[T any](data []byte) (T, error) {
	var v T
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, fmt.Errorf("%w", err)
	}
	if written := line(v); !bytes.Equal(written, append(slices.Clip(data), '\n')) {
		return v, fmt.Errorf("not in the form that semper writes")
	}
	return v, nil
}

// Parse reads a lock; path is for messages. Every error is of kind Input, and names the line.
func Parse(path string, data []byte) (*Lock, error) {
	l, n, err := parse(data)
	if err != nil {
		return nil, fault.New(fault.Input, "%s:%d: %w; run 'semper lock' to write it anew", path, n, err)
	}
	return l, nil
}

func parse(data []byte) (l *Lock, n int, err error) {
	if len(data) > maxBytes {
		return nil, 1, fmt.Errorf("larger than %d bytes", maxBytes)
	}
	text, complete := bytes.CutSuffix(data, []byte("\n"))
	if !complete {
		return nil, bytes.Count(data, []byte("\n")) + 1, fmt.Errorf("the last line is not complete")
	}
	l = &Lock{}
	for raw := range bytes.SplitSeq(text, []byte("\n")) {
		n++
		if n == 1 {
			err = l.addHeader(raw)
		} else {
			err = l.addLine(raw)
		}
		if err != nil {
			return nil, n, err
		}
	}
	if len(l.Releases) == 0 {
		return nil, n, fmt.Errorf("there is no release line")
	}
	kernels := 0
	for _, p := range l.Packages {
		if p.In(Kernel) {
			kernels++
		}
	}
	if kernels != 1 {
		return nil, n, fmt.Errorf("there must be one kernel package, not %d", kernels)
	}
	return l, n, nil
}

func (l *Lock) addHeader(raw []byte) error {
	h, err := decodeLine[header](raw)
	if err != nil {
		return err
	}
	if h.Format != format {
		return fmt.Errorf("format %q is not %q", h.Format, format)
	}
	for _, w := range append([]string{h.Suite, h.Architecture}, h.Components...) {
		if !wordForm.MatchString(w) {
			return fmt.Errorf("%q is not a name", w)
		}
	}
	if len(h.Components) == 0 || !ascending(h.Components) {
		return fmt.Errorf("components must be sorted and not empty")
	}
	l.Suite, l.Architecture, l.Components = h.Suite, h.Architecture, h.Components
	return nil
}

func ascending[T ~string](list []T) bool {
	for i := 1; i < len(list); i++ {
		if list[i-1] >= list[i] {
			return false
		}
	}
	return true
}

func (l *Lock) addLine(raw []byte) error {
	switch {
	case bytes.HasPrefix(raw, []byte(`{"release":`)):
		r, err := decodeLine[Release](raw)
		if err != nil {
			return err
		}
		return l.addRelease(r)
	case bytes.HasPrefix(raw, []byte(`{"wants":`)):
		w, err := decodeLine[Want](raw)
		if err != nil {
			return err
		}
		return l.addWant(w)
	case bytes.HasPrefix(raw, []byte(`{"package":`)):
		p, err := decodeLine[Package](raw)
		if err != nil {
			return err
		}
		return l.addPackage(p)
	default:
		return fmt.Errorf("neither a release, nor a wish, nor a package")
	}
}

func (l *Lock) addRelease(r Release) error {
	_, offset := r.Date.Zone()
	switch {
	case len(l.Wants) > 0 || len(l.Packages) > 0:
		return fmt.Errorf("a release line must come before wishes and packages")
	case len(l.Releases) == maxReleases:
		return fmt.Errorf("more than %d releases", maxReleases)
	case !wordForm.MatchString(r.Suite):
		return fmt.Errorf("%q is not a suite", r.Suite)
	case offset != 0 || r.Date.Nanosecond() != 0 || r.Date.Before(time.Unix(0, 0)) || r.Date.Year() > 2999:
		return fmt.Errorf("date %s is not a whole second in UTC between 1970 and 2999", r.Date.Format(time.RFC3339Nano))
	case len(l.Releases) > 0 && l.Releases[len(l.Releases)-1].Suite >= r.Suite:
		return fmt.Errorf("release %q is out of order", r.Suite)
	}
	l.Releases = append(l.Releases, r)
	return nil
}

func (l *Lock) addWant(w Want) error {
	switch {
	case len(l.Packages) > 0:
		return fmt.Errorf("wishes must come before packages")
	case len(l.Wants) == maxWants:
		return fmt.Errorf("more than %d wishes", maxWants)
	case !nameForm.MatchString(w.Name):
		return fmt.Errorf("%q is not a package name", w.Name)
	case w.For != Image && w.For != Kernel && w.For != Tools:
		return fmt.Errorf("%q is not a group", w.For)
	case len(l.Wants) > 0 && compareWants(l.Wants[len(l.Wants)-1], w) >= 0:
		return fmt.Errorf("%q is out of order", w.Name)
	}
	l.Wants = append(l.Wants, w)
	return nil
}

func (l *Lock) addPackage(p Package) error {
	if len(l.Packages) == maxPackages {
		return fmt.Errorf("more than %d packages", maxPackages)
	}
	if err := p.check(); err != nil {
		return err
	}
	if p.Architecture != l.Architecture && p.Architecture != "all" {
		return fmt.Errorf("package %q is for %q, not for %q", p.Name, p.Architecture, l.Architecture)
	}
	if n := len(l.Packages); n > 0 && l.Packages[n-1].Name >= p.Name {
		return fmt.Errorf("package %q is out of order", p.Name)
	}
	l.Packages = append(l.Packages, p)
	return nil
}

func (p Package) check() error {
	digest, err := hex.DecodeString(p.SHA256)
	switch {
	case !nameForm.MatchString(p.Name):
		return fmt.Errorf("%q is not a package name", p.Name)
	case !versionForm.MatchString(p.Version):
		return fmt.Errorf("package %q: %q is not a version", p.Name, p.Version)
	case err != nil || len(digest) != 32 || strings.ToLower(p.SHA256) != p.SHA256:
		return fmt.Errorf("package %q: %q is not a SHA-256", p.Name, p.SHA256)
	case p.Size <= 0 || p.Size > maxDeb:
		return fmt.Errorf("package %q: %d bytes is not a size between 1 byte and 4 GiB", p.Name, p.Size)
	case p.Archive != Debian && p.Archive != Security:
		return fmt.Errorf("package %q: %q is not an archive", p.Name, p.Archive)
	case !pathForm.MatchString(p.Path) || path.Clean(p.Path) != p.Path:
		return fmt.Errorf("package %q: %q is not a path of an archive", p.Name, p.Path)
	case len(p.Groups) == 0 || !ascending(p.Groups):
		return fmt.Errorf("package %q: groups must be sorted and not empty", p.Name)
	}
	for _, g := range p.Groups {
		if g != Image && g != Kernel && g != Tools {
			return fmt.Errorf("package %q: %q is not a group", p.Name, g)
		}
	}
	return nil
}
