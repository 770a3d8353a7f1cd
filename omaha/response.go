package omaha

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

// AppStatus says whether the server knows the application.
type AppStatus string

// The answers to an application.
const (
	AppOK        AppStatus = "ok"
	AppUnknown   AppStatus = "error-unknownApplication"
	AppInvalidID AppStatus = "error-invalidAppId"
)

// UpdateStatus says whether there is an update. Flatcar's client takes anything but these two for a broken server and reports error 34.
type UpdateStatus string

// The answers to an update check.
const (
	UpdateAvailable UpdateStatus = "ok"
	NoUpdate        UpdateStatus = "noupdate"
)

// PostInstall is the event of the one action that update_engine reads.
const PostInstall = "postinstall"

// Response is what the server says to one POST.
type Response struct {
	Server         string // the server's name
	ElapsedSeconds int    // since midnight UTC
	Apps           []AppResponse
}

// AppResponse answers one application of the request.
type AppResponse struct {
	ID          string
	Status      AppStatus
	Ping        bool // the ping is acknowledged
	UpdateCheck *UpdateResponse
	Events      int // how many events are acknowledged
}

// UpdateResponse answers an update check. URLs and Manifest are set when Status is UpdateAvailable.
type UpdateResponse struct {
	Status       UpdateStatus
	PollInterval time.Duration // when to ask again, whole seconds; 0 leaves it to the client
	Reason       string        // of NoUpdate, for people; at most MaxReason bytes
	Freshness    string        // the channel's freshness statement, empty when there is none; not verified
	URLs         []string      // folders that hold the packages, in the order to try them
	Manifest     *Manifest
}

// Manifest is one version and what it consists of.
type Manifest struct {
	Version  string
	Packages []Package // the first one is the payload
	Actions  []Action
}

// Package is one file to fetch, as it stands in the message. Hashes may be missing.
type Package struct {
	Name     string
	SHA1     string // base64; "hash"
	SHA256   string // lower-case hex; "hash_sha256"
	Size     int64  // bytes
	Required bool
}

// Action says what to do with the packages; the one whose Event is PostInstall carries the payload's hash.
type Action struct {
	Event                 string
	SHA256                string // base64 of the payload's SHA-256
	IsDelta               bool
	DisablePayloadBackoff bool
	MaxFailureCountPerURL int // 0 leaves it to the client
}

// Payload is the update that a response offers, checked: what a client downloads.
type Payload struct {
	Version string
	URLs    []string // of the file itself, in the order to try them; http or https
	Size    int64    // bytes, more than zero
	SHA256  [sha256.Size]byte
	IsDelta bool
}

// Payload returns what u offers, or an error of kind fault.Input when something that a client needs is missing or wrong.
// Call it only when Status is UpdateAvailable.
func (u *UpdateResponse) Payload() (Payload, error) {
	var p Payload
	fail := func(format string, args ...any) (Payload, error) {
		return Payload{}, fault.New(fault.Input, "omaha response: offered update: "+format, args...)
	}
	if u.Status != UpdateAvailable || u.Manifest == nil {
		return fail("there is none")
	}
	p.Version = u.Manifest.Version
	if err := CheckVersion(p.Version); err != nil {
		return fail("%w", err)
	}
	if len(u.Manifest.Packages) == 0 {
		return fail("it has no package")
	}
	pkg := u.Manifest.Packages[0]
	if p.Size = pkg.Size; p.Size <= 0 {
		return fail("package %s: its size is %d", pkg.Name, pkg.Size)
	}
	if pkg.Name == "" || pkg.Name == "." || pkg.Name == ".." || strings.ContainsAny(pkg.Name, "/?#\\") {
		return fail("package name %q is not a file name", pkg.Name)
	}
	for _, a := range u.Manifest.Actions {
		if a.Event != PostInstall {
			continue
		}
		sum, err := base64.StdEncoding.Strict().DecodeString(a.SHA256)
		if err != nil || len(sum) != sha256.Size {
			return fail("sha256 %q is not the base64 of 32 bytes", a.SHA256)
		}
		p.SHA256, p.IsDelta = [sha256.Size]byte(sum), a.IsDelta
		break
	}
	if p.SHA256 == [sha256.Size]byte{} {
		return fail("it has no %s action with the payload's sha256", PostInstall)
	}
	for _, codebase := range u.URLs {
		full, err := url.Parse(codebase)
		if err != nil || (full.Scheme != "http" && full.Scheme != "https") || full.Host == "" {
			return fail("%q is not an http or https URL", codebase)
		}
		p.URLs = append(p.URLs, full.JoinPath(pkg.Name).String())
	}
	if len(p.URLs) == 0 {
		return fail("it has no URL")
	}
	return p, nil
}
