package lock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/semper-os/semper/fault"
)

// aptRoot is apt with a configuration, sources, lists and package status of its own in a temporary folder: it sees nothing of the host's
// configuration, hooks or installed packages, and changes nothing of them.
type aptRoot struct {
	dir string
	env []string
}

// suites are the suites of a release, in the order of apt's sources.
func suites(release string) []struct {
	name string
	from Archive
} {
	return []struct {
		name string
		from Archive
	}{{release, Debian}, {release + "-updates", Debian}, {release + "-security", Security}}
}

func newAptRoot(dir, release, architecture string, components []string, m Mirrors, o Options) (*aptRoot, error) {
	a := &aptRoot{dir: dir, env: []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC", "HOME=/nonexistent", "TMPDIR=" + dir,
		"DEBIAN_FRONTEND=noninteractive", "APT_CONFIG=" + filepath.Join(dir, "apt.conf"),
	}}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy", "ALL_PROXY"} {
		if v := os.Getenv(name); v != "" {
			a.env = append(a.env, name+"="+v)
		}
	}
	// The folders are open to all because apt's downloads run as a user without rights of its own.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	for _, d := range []string{
		"etc", "etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "etc/auth.conf.d",
		"state", "state/lists", "state/lists/partial", "cache", "cache/archives", "cache/archives/partial", "log",
	} {
		path := filepath.Join(dir, d)
		if err := os.Mkdir(path, 0o755); err != nil {
			return nil, err
		}
		if err := os.Chmod(path, 0o755); err != nil { // whatever the umask says
			return nil, err
		}
	}
	// A copy of the keys, because that user may not be let into the folder where they lie. Apt tells armoured keys by the suffix .asc.
	keyring := filepath.Join(dir, "keys.gpg")
	if filepath.Ext(o.Keyring) == ".asc" {
		keyring = filepath.Join(dir, "keys.asc")
	}
	keys, err := os.ReadFile(o.Keyring)
	if err != nil {
		return nil, err
	}
	var conf strings.Builder
	set := func(key, value string) { fmt.Fprintf(&conf, "%s %q;\n", key, value) }
	set("Dir::Etc", filepath.Join(dir, "etc"))
	set("Dir::Etc::trusted", os.DevNull)
	set("Dir::Etc::trustedparts", os.DevNull)
	set("Dir::State", filepath.Join(dir, "state"))
	set("Dir::State::status", filepath.Join(dir, "status"))
	set("Dir::Cache", filepath.Join(dir, "cache"))
	set("Dir::Log", filepath.Join(dir, "log"))
	set("APT::Architecture", architecture)
	fmt.Fprintf(&conf, "#clear APT::Architectures;\nAPT::Architectures { %q; };\n", architecture)
	set("APT::Install-Recommends", "false")
	set("APT::Install-Suggests", "false")
	set("APT::Solver", "internal")          // the same answer from the apt of Debian 12 and of 13
	set("pkgCacheGen::ForceEssential", ",") // else apt counts itself as essential
	set("APT::Update::Error-Mode", "any")   // else a suite that cannot be fetched is only a warning
	set("Acquire::Languages", "none")
	set("Acquire::GzipIndexes", "false")
	set("Acquire::Retries", strconv.Itoa(3-o.fewerRetries))
	set("Acquire::http::Timeout", "30")
	set("Acquire::https::Timeout", "30")
	if o.AllowExpired {
		set("Acquire::Check-Valid-Until", "false")
	}
	for _, scheme := range []string{"http", "https"} {
		if p := m.Proxies[scheme]; p != "" {
			set("Acquire::"+scheme+"::Proxy", p)
		}
	}
	var list strings.Builder
	for _, s := range suites(release) {
		base := m.Debian
		if s.from == Security {
			base = m.Security
		}
		fmt.Fprintf(&list, "deb [signed-by=%s] %s %s %s\n", keyring, base, s.name, strings.Join(components, " "))
	}
	for name, text := range map[string]string{"apt.conf": conf.String(), "etc/sources.list": list.String(), "status": "", filepath.Base(keyring): string(keys)} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return nil, err
		}
		if err := os.Chmod(path, 0o644); err != nil { // whatever the umask says
			return nil, err
		}
	}
	return a, nil
}

// aptError is what apt said when it failed.
type aptError struct {
	args   []string
	err    error
	stdout string
	stderr string
}

func (e *aptError) Error() string {
	return fmt.Sprintf("%s: %v: %s", strings.Join(e.args, " "), e.err, complaints(e.stderr))
}

func (e *aptError) Unwrap() error { return e.err }

// run calls one of apt's programs and returns what it printed. An error is a *aptError, or the context's.
func (a *aptRoot) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = a.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if errors.Is(err, exec.ErrNotFound) {
			return "", fault.New(fault.Input, "%s is not installed: it is part of Debian's package apt", name)
		}
		return "", &aptError{append([]string{name}, args[:1]...), err, stdout.String(), stderr.String()}
	}
	return stdout.String(), nil
}

// complaints are apt's errors, then its warnings, on one line and shortened.
func complaints(stderr string) string {
	var list []string
	for _, prefix := range []string{"E: ", "W: "} {
		for l := range strings.Lines(stderr) {
			text, ok := strings.CutPrefix(strings.TrimSpace(l), prefix)
			if ok && !strings.HasPrefix(text, "Download is performed unsandboxed") {
				list = append(list, text)
			}
		}
	}
	const few = 3
	if more := len(list) - few; more > 0 {
		list = append(list[:few], fmt.Sprintf("and %d more", more))
	}
	s := strings.Join(list, "; ")
	if s == "" {
		s = strings.Join(strings.Fields(stderr), " ")
	}
	const most = 1000
	if len(s) > most {
		s = s[:most] + "…"
	}
	return s
}

// update downloads the signed indexes. Errors tell a mirror that cannot be reached from one that cannot be trusted.
func (a *aptRoot) update(ctx context.Context) error {
	_, err := a.run(ctx, "apt-get", "update")
	var e *aptError
	if !errors.As(err, &e) {
		return err
	}
	has := func(texts ...string) bool {
		for _, t := range texts {
			if strings.Contains(e.stderr, t) {
				return true
			}
		}
		return false
	}
	switch {
	case has("No space left on device"):
		return fault.New(fault.IO, "%w", err)
	case has("is expired", "is not valid anymore"):
		return fault.New(fault.Verification, "%w; an archive of old releases needs --allow-expired", err)
	case has("NO_PUBKEY", "Missing key"):
		return fault.New(fault.Verification, "%w; the keyring does not know the key: apt-get install --only-upgrade debian-archive-keyring", err)
	case has("is not signed", "signature", "Signed file isn't valid", "Hash Sum mismatch", "size mismatch", "unexpected size"):
		return fault.New(fault.Verification, "%w", err)
	default:
		return fault.New(fault.Network, "%w", err)
	}
}
