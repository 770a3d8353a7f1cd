package freshness

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

// Bounds on a statement.
const (
	// MaxLifetime is the longest time between issued and expires: what counts for longer tells nothing.
	MaxLifetime = 90 * 24 * time.Hour

	maxDocument = 1 << 10 // bytes
	maxName     = 64      // bytes of product, channel, architecture, version

	docType   = "freshness"
	docFormat = 1
)

const (
	letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	inNames = letters + "._-"
	// As package omaha has it: what has a place in the order of versions.
	inVersions = letters + ".~^-+"
)

// Statement says which version was the newest of a product, in a channel and for an architecture, at the time Issued, and until when that counts. Times are
// whole seconds in UTC. The zero Statement stands for none.
type Statement struct {
	Product      string    `json:"product,omitempty"`
	Channel      string    `json:"channel,omitempty"`
	Architecture string    `json:"architecture,omitempty"`
	Version      string    `json:"version,omitempty"`
	Issued       time.Time `json:"issued,omitzero"`
	Expires      time.Time `json:"expires,omitzero"`
	Sequence     uint64    `json:"sequence,omitempty"`
}

// document is a statement's signed form.
type document struct {
	Type         string `json:"type"`
	Format       int    `json:"format"`
	Product      string `json:"product"`
	Channel      string `json:"channel"`
	Architecture string `json:"architecture"`
	Version      string `json:"version"`
	Issued       string `json:"issued"`
	Expires      string `json:"expires"`
	Sequence     uint64 `json:"sequence"`
}

const timeFormat = "2006-01-02T15:04:05Z"

// Same reports whether s and t are the same statement.
func (s Statement) Same(t Statement) bool {
	return s.about(t) && s.Version == t.Version && s.Sequence == t.Sequence && s.Issued.Equal(t.Issued) && s.Expires.Equal(t.Expires)
}

// about reports whether s and t are about the same channel.
func (s Statement) about(t Statement) bool {
	return s.Product == t.Product && s.Channel == t.Channel && s.Architecture == t.Architecture
}

// Document returns the bytes that are signed, or an error of kind Input when a field is not what it should be.
func (s Statement) Document() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(document{
		Type: docType, Format: docFormat, Product: s.Product, Channel: s.Channel, Architecture: s.Architecture, Version: s.Version,
		Issued: s.Issued.UTC().Format(timeFormat), Expires: s.Expires.UTC().Format(timeFormat), Sequence: s.Sequence,
	})
	return b, fault.Wrap(fault.Internal, err)
}

func (s Statement) check() error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Input, "freshness statement: "+format, args...)
	}
	for _, f := range [][2]string{{"product", s.Product}, {"channel", s.Channel}, {"architecture", s.Architecture}} {
		if f[1] == "" || len(f[1]) > maxName || strings.Trim(f[1], inNames) != "" {
			return bad("%s %.80q: want 1 to %d letters, digits, '.', '-' or '_'", f[0], f[1], maxName)
		}
	}
	if v := s.Version; v == "" || len(v) > maxName || v[0] < '0' || v[0] > '9' || strings.Trim(v, inVersions) != "" {
		return bad("%.80q is not a version such as 1.2.0", v)
	}
	for _, t := range []time.Time{s.Issued, s.Expires} {
		if t.Year() < 1970 || t.Year() > 9999 || t.Nanosecond() != 0 {
			return bad("%v is not a time in whole seconds after 1970", t)
		}
	}
	if life := s.Expires.Sub(s.Issued); life <= 0 || life > MaxLifetime {
		return bad("it expires %v after it was issued: want more than nothing and at most %d days", life, int(MaxLifetime.Hours()/24))
	}
	// A number that cannot run ahead of the clock cannot be used up either: a thief of the keys could otherwise make all later statements look old.
	if s.Sequence < 1 || s.Sequence > uint64(s.Issued.Unix()) {
		return bad("sequence %d is not between 1 and the second it was issued at, %d", s.Sequence, s.Issued.Unix())
	}
	return nil
}

// parse reads a document strictly: exactly the bytes that Document would write.
func parse(b []byte) (Statement, error) {
	bad := func(format string, args ...any) (Statement, error) {
		return Statement{}, fault.New(fault.Input, "freshness statement: "+format, args...)
	}
	if len(b) > maxDocument {
		return bad("more than %d bytes", maxDocument)
	}
	var kind struct {
		Type   string `json:"type"`
		Format int    `json:"format"`
	}
	if err := json.Unmarshal(b, &kind); err != nil {
		return bad("%w", err)
	}
	if kind.Type != docType || kind.Format != docFormat {
		return bad("type %.40q, format %d: this program knows %q, %d", kind.Type, kind.Format, docType, docFormat)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return bad("%w", err)
	}
	s := Statement{Product: d.Product, Channel: d.Channel, Architecture: d.Architecture, Version: d.Version, Sequence: d.Sequence}
	var err error
	if s.Issued, err = time.Parse(timeFormat, d.Issued); err != nil {
		return bad("issued: %.40q is not a time such as %s", d.Issued, timeFormat)
	}
	if s.Expires, err = time.Parse(timeFormat, d.Expires); err != nil {
		return bad("expires: %.40q is not a time such as %s", d.Expires, timeFormat)
	}
	canonical, err := s.Document()
	if err != nil {
		return Statement{}, err
	}
	if !bytes.Equal(canonical, b) {
		return bad("not in its canonical form")
	}
	return s, nil
}
