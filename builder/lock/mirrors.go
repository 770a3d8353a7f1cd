package lock

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

// Mirrors say where the two archives are reached, without a slash at the end. The scheme is http, https, file or copy.
type Mirrors struct {
	Debian   string
	Security string

	// Proxies are the host apt's own settings by scheme ("http", "https"): a proxy's URL, or "DIRECT". They come before the environment's.
	Proxies map[string]string
}

// URL is where a package is found. Characters that some stores take for others ("+") are escaped, as apt does.
func (m Mirrors) URL(p Package) string {
	base := m.Debian
	if p.Archive == Security {
		base = m.Security
	}
	var b strings.Builder
	b.WriteString(base + "/")
	for _, c := range []byte(p.Path) {
		if c == '+' || c == '%' || c == ':' {
			fmt.Fprintf(&b, "%%%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Sources say where the mirrors are taken from.
type Sources struct {
	Mirror         string // the Debian archive's URL; empty: the host's
	SecurityMirror string // the security archive's URL; empty: the host's
	AptSources     string // a sources.list, a .sources file, or a folder of such; empty: /etc/apt
}

// FindMirrors returns the archives' mirrors: those that are given, and otherwise those of the host's apt configuration, which may be for another release of Debian.
// It is an error of kind Input when that names none.
func FindMirrors(ctx context.Context, s Sources) (Mirrors, error) {
	m := Mirrors{Debian: s.Mirror, Security: s.SecurityMirror}
	var err error
	for _, u := range []*string{&m.Debian, &m.Security} {
		if *u != "" {
			if *u, err = cleanURL(*u); err != nil {
				return Mirrors{}, fault.Wrap(fault.Usage, err)
			}
		}
	}
	if m.Proxies, err = hostProxies(ctx); err != nil {
		return Mirrors{}, err
	}
	if m.Debian != "" && m.Security != "" {
		return m, nil
	}
	out, err := hostURIs(ctx, s.AptSources)
	if err != nil {
		return Mirrors{}, err
	}
	debian, security := chooseMirrors(out, readMirrorList)
	m.Debian, m.Security = cmp.Or(m.Debian, debian), cmp.Or(m.Security, security)
	where := cmp.Or(s.AptSources, "/etc/apt")
	if m.Debian == "" {
		return Mirrors{}, fault.New(fault.Input, "the apt sources in %s name no Debian archive: give one with --mirror URL or SEMPER_MIRROR", where)
	}
	if m.Security == "" {
		return Mirrors{}, fault.New(fault.Input, "the apt sources in %s name no Debian security archive: give one with --security-mirror URL or SEMPER_SECURITY_MIRROR", where)
	}
	return m, nil
}

func cleanURL(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", fmt.Errorf("mirror: %w", err)
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
	case (u.Scheme == "file" || u.Scheme == "copy") && u.Host == "" && path.IsAbs(u.Path):
	default:
		return "", fmt.Errorf("%q is not a mirror's URL (http, https, file or copy)", s)
	}
	if u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(s, " \t\r\n\"'[]") {
		return "", fmt.Errorf("%q is not a mirror's URL: it ends with the archive's folder", s)
	}
	return strings.TrimRight(s, "/"), nil
}

// hostURIs asks apt itself which index files its sources name; nothing is downloaded. One URI in quotes begins each line.
func hostURIs(ctx context.Context, sources string) ([]byte, error) {
	args := []string{"update", "--print-uris"}
	if sources != "" {
		list, parts := sources, os.DevNull
		if info, err := os.Stat(sources); err != nil {
			return nil, fault.New(fault.Input, "apt sources: %w", err)
		} else if info.IsDir() {
			list, parts = filepath.Join(sources, "sources.list"), filepath.Join(sources, "sources.list.d")
		}
		args = append(args, "-o", "Dir::Etc::sourcelist="+list, "-o", "Dir::Etc::sourceparts="+parts)
	}
	return hostApt(ctx, "apt-get", args...)
}

func hostProxies(ctx context.Context) (map[string]string, error) {
	out, err := hostApt(ctx, "apt-config", "shell", "http", "Acquire::http::Proxy", "https", "Acquire::https::Proxy")
	if err != nil {
		return nil, err
	}
	proxies := map[string]string{}
	for l := range strings.Lines(string(out)) {
		if scheme, value, ok := strings.Cut(strings.TrimSpace(l), "="); ok {
			if value = strings.Trim(value, `'"`); value != "" {
				proxies[scheme] = value
			}
		}
	}
	return proxies, nil
}

func hostApt(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fault.New(fault.Input, "%s %s: %w: %s", name, args[0], err, complaints(stderr.String()))
	}
	return out, nil
}

// chooseMirrors finds the two archives among the URIs of a host's index files. Third parties use Debian's suite names too, so an archive counts
// as Debian's when it has the component main and either an -updates suite or Debian's usual folder name.
func chooseMirrors(uris []byte, mirrorList func(file string) string) (debian, security string) {
	type archive struct {
		base   string
		suites []string
	}
	var archives []*archive
	for l := range strings.Lines(string(uris)) {
		uri, _, ok := strings.Cut(strings.TrimPrefix(l, "'"), "' ")
		base, rest, inDists := strings.Cut(uri, "/dists/")
		suite, _, binary := strings.Cut(rest, "/main/binary-")
		if !ok || !inDists || !binary {
			continue
		}
		if file, ok := strings.CutPrefix(base, "mirror+file:"); ok {
			base = mirrorList(file)
		}
		base, err := cleanURL(base)
		if err != nil {
			continue
		}
		i := slices.IndexFunc(archives, func(a *archive) bool { return a.base == base })
		if i < 0 {
			i = len(archives)
			archives = append(archives, &archive{base: base})
		}
		archives[i].suites = append(archives[i].suites, suite)
	}
	best := 0
	for _, a := range archives {
		score := 0
		usual := path.Base(a.base) == "debian" || strings.Contains(a.base, "/archive/debian/")
		for _, s := range a.suites {
			switch {
			case strings.HasSuffix(s, "-security") || strings.HasSuffix(s, "/updates"):
				if security == "" {
					security = a.base
				}
			case strings.ContainsAny(s, "-/"):
			case slices.Contains(a.suites, s+"-updates"):
				score = max(score, 2)
			case usual:
				score = max(score, 1)
			}
		}
		if score > 0 && usual {
			score += 2
		}
		if score > best {
			best, debian = score, a.base
		}
	}
	return debian, security
}

// readMirrorList returns the first mirror of a list for apt's mirror method; Debian's cloud images use one. Empty when there is none.
func readMirrorList(file string) string {
	data, err := os.ReadFile(strings.TrimPrefix(file, "//"))
	if err != nil {
		return ""
	}
	for l := range strings.Lines(string(data)) {
		if words := strings.Fields(l); len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			return strings.TrimRight(words[0], "/")
		}
	}
	return ""
}
