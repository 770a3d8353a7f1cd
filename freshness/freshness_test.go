package freshness

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
)

var (
	issued = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	day1   = 24 * time.Hour
)

func good() Statement {
	return Statement{
		Product: "semper", Channel: "stable", Architecture: "amd64", Version: "1.2.0", Issued: issued, Expires: issued.Add(14 * day1),
		Sequence: uint64(issued.Unix()),
	}
}

// at is good, issued later.
func at(later time.Duration, version string) Statement {
	s := good()
	s.Version, s.Issued, s.Expires = version, s.Issued.Add(later), s.Expires.Add(later)
	s.Sequence = uint64(s.Issued.Unix())
	return s
}

func machine(now time.Time) Machine {
	return Machine{Product: "semper", Channel: "stable", Architecture: "amd64", Now: now, NotBefore: issued.Add(-100 * day1)}
}

var ecKeys = sync.OnceValue(func() []crypto.Signer {
	var keys []crypto.Signer
	for range 4 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			panic(err)
		}
		keys = append(keys, key)
	}
	return keys
})

var rsaKey = sync.OnceValue(func() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		panic(err)
	}
	return key
})

func trust(threshold int, signers ...crypto.Signer) payload.Trust {
	t := payload.Trust{Threshold: threshold}
	for _, s := range signers {
		t.Keys = append(t.Keys, s.Public())
	}
	return t
}

func sign(t testing.TB, s Statement, signers ...crypto.Signer) []byte {
	t.Helper()
	b, err := Sign(s, signers)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDocumentBytes pins what is signed: other programs sign and read it too.
func TestDocumentBytes(t *testing.T) {
	b, err := good().Document()
	want := `{"type":"freshness","format":1,"product":"semper","channel":"stable","architecture":"amd64","version":"1.2.0",` +
		`"issued":"2026-01-02T03:04:05Z","expires":"2026-01-16T03:04:05Z","sequence":1767323045}`
	if string(b) != want || err != nil {
		t.Errorf("document\n%s (%v), want\n%s", b, err, want)
	}
	if s, err := parse(b); err != nil || s != good() {
		t.Errorf("read back %+v (%v)", s, err)
	}
	zoned := good()
	zoned.Issued = zoned.Issued.In(time.FixedZone("", 3600))
	if b, err := zoned.Document(); string(b) != want || err != nil {
		t.Errorf("in another zone\n%s (%v)", b, err)
	}
}

func TestBadStatements(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Statement)
		want   string
	}{
		"no product":           {func(s *Statement) { s.Product = "" }, `product ""`},
		"channel with a slash": {func(s *Statement) { s.Channel = "a/b" }, `channel "a/b"`},
		"long architecture":    {func(s *Statement) { s.Architecture = strings.Repeat("a", 65) }, "architecture"},
		"version in words":     {func(s *Statement) { s.Version = "newest" }, "is not a version"},
		"no version":           {func(s *Statement) { s.Version = "" }, "is not a version"},
		"before 1970":          {func(s *Statement) { s.Issued = time.Unix(-1, 0) }, "after 1970"},
		"no time":              {func(s *Statement) { s.Issued = time.Time{} }, "after 1970"},
		"parts of a second":    {func(s *Statement) { s.Expires = s.Expires.Add(1) }, "whole seconds"},
		"expired when issued":  {func(s *Statement) { s.Expires = s.Issued }, "expires 0s after"},
		"counts for too long":  {func(s *Statement) { s.Expires = s.Issued.Add(MaxLifetime + time.Second) }, "at most 90 days"},
		"no sequence":          {func(s *Statement) { s.Sequence = 0 }, "sequence 0"},
		"sequence ahead":       {func(s *Statement) { s.Sequence++ }, "is not between 1 and the second"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.change(&s)
			if _, err := Sign(s, ecKeys()[:1]); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestVerify is about one statement and the machine that reads it.
func TestVerify(t *testing.T) {
	key, other := ecKeys()[0], ecKeys()[1]
	year := 365 * day1
	for name, c := range map[string]struct {
		s       Statement
		machine Machine
		last    Statement
		want    Case
		text    string
	}{
		"at once":                   {s: good(), machine: machine(issued)},
		"in its last second":        {s: good(), machine: machine(issued.Add(14*day1 - 1))},
		"the same again":            {s: good(), machine: machine(issued), last: good()},
		"the next":                  {s: at(day1, "1.2.0"), machine: machine(issued.Add(day1)), last: good()},
		"a release was withdrawn":   {s: at(day1, "1.1.0"), machine: machine(issued.Add(day1)), last: good()},
		"clock an hour behind":      {s: good(), machine: machine(issued.Add(-ClockTolerance))},
		"clock more than that":      {s: good(), machine: machine(issued.Add(-ClockTolerance - 1)), want: Future, text: "issued on 2026-01-02 03:04 UTC, and it is 2026-01-02 02:04 UTC here: this"},
		"expires now":               {s: good(), machine: machine(issued.Add(14 * day1)), want: Expired, text: "expired on 2026-01-16 03:04 UTC, and it is 2026-01-16 03:04 UTC here: the"},
		"clock ahead by years":      {s: good(), machine: machine(issued.Add(10 * year)), want: Expired, text: "or this machine's clock is wrong"},
		"clock at 1970, image old":  {s: good(), machine: machine(time.Unix(0, 0)), want: Future, text: "it is 1970-01-01 00:00 UTC here, though it is certainly after 2025-09-24 03:04 UTC"},
		"clock at 1970, image new":  {s: good(), machine: Machine{Product: "semper", Channel: "stable", Architecture: "amd64", Now: time.Unix(0, 0), NotBefore: issued.Add(day1)}},
		"expired before the image":  {s: good(), machine: Machine{Product: "semper", Channel: "stable", Architecture: "amd64", Now: time.Unix(0, 0), NotBefore: issued.Add(15 * day1)}, want: Expired, text: "certainly after"},
		"clock at 1970, seen later": {s: at(13*day1, "1.2.0"), machine: machine(time.Unix(0, 0)), last: at(12*day1+23*time.Hour, "1.2.0")},
		"another channel's":         {s: good(), machine: Machine{Product: "semper", Channel: "beta", Architecture: "amd64", Now: issued}, want: WrongSubject},
		"expired, by another channel's": {
			s: good(), machine: machine(issued), last: func() Statement { s := at(20*day1, "3"); s.Channel = "beta"; return s }(),
			want: Expired, text: "certainly after 2026-01-22",
		},
		"another channel's is no replay": {s: good(), machine: machine(issued), last: func() Statement { s := at(time.Hour, "3"); s.Channel = "beta"; return s }()},
		"no image time":                  {s: good(), machine: Machine{Product: "semper", Channel: "stable", Architecture: "amd64", Now: issued}},
		"older":                          {s: good(), machine: machine(issued.Add(day1)), last: at(day1, "1.3.0"), want: Replayed, text: "is older than"},
		"older, and expired":             {s: good(), machine: machine(issued.Add(20 * day1)), last: at(day1, "1.3.0"), want: Replayed, text: "is older than"},
		"older by number alone": {
			s: func() Statement { s := at(day1, "1.2.0"); s.Sequence = 5; return s }(), machine: machine(issued.Add(day1)), last: good(), want: Replayed, text: "is older than",
		},
		"older by time alone": {
			s: good(), machine: machine(issued.Add(day1)), last: func() Statement { s := at(day1, "1.2.0"); s.Sequence = 5; return s }(), want: Replayed, text: "is older than",
		},
		"two with one number": {
			s: func() Statement { s := good(); s.Version = "1.1.0"; return s }(), machine: machine(issued), last: good(), want: Replayed,
			text: "two different freshness statements have the number 1767323045: one names 1.2.0",
		},
		"the same for longer": {
			s: func() Statement { s := good(); s.Expires = s.Expires.Add(1 * time.Second); return s }(), machine: machine(issued), last: good(), want: Replayed,
		},
		"another product": {
			s: func() Statement { s := good(); s.Product = "other"; return s }(), machine: machine(issued), want: WrongSubject,
			text: "is about other stable for amd64, not about semper stable for amd64",
		},
		"another architecture": {s: func() Statement { s := good(); s.Architecture = "arm64"; return s }(), machine: machine(issued), want: WrongSubject},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Verify(sign(t, c.s, key), trust(1, key), c.machine, c.last)
			if CaseOf(err) != c.want || (err == nil) != (c.want == "") || (err != nil && (!strings.Contains(err.Error(), c.text) || !fault.Is(err, fault.Verification))) {
				t.Fatalf("error %v (%s, %v), want %q with %q", err, CaseOf(err), fault.KindOf(err), c.want, c.text)
			}
			if want := c.s; err == nil && got != want || err != nil && got != (Statement{}) {
				t.Errorf("statement %+v", got)
			}
			if _, err := Verify(sign(t, c.s, key), trust(1, other), c.machine, c.last); CaseOf(err) != BadSignature {
				t.Errorf("with another key: %v", err)
			}
		})
	}
}

// TestKeys is about who signed: thresholds, and both sides of a change of keys.
func TestKeys(t *testing.T) {
	a, b, c, r := ecKeys()[0], ecKeys()[1], ecKeys()[2], rsaKey()
	for name, k := range map[string]struct {
		signers []crypto.Signer
		trust   payload.Trust
		want    Case
	}{
		"one of one":                     {[]crypto.Signer{a}, trust(1, a), ""},
		"RSA":                            {[]crypto.Signer{r}, trust(1, r), ""},
		"one of two":                     {[]crypto.Signer{b}, trust(1, a, b), ""},
		"two of three":                   {[]crypto.Signer{c, r}, trust(2, a, c, r), ""},
		"one where two are needed":       {[]crypto.Signer{a}, trust(2, a, r), BadSignature},
		"a trusted and a strange one":    {[]crypto.Signer{a, b}, trust(2, a, r), BadSignature},
		"one key is trusted twice":       {[]crypto.Signer{a}, trust(2, a, a), BadSignature},
		"nobody is trusted":              {[]crypto.Signer{a}, trust(1), BadSignature},
		"no threshold":                   {[]crypto.Signer{a}, trust(0, a), BadSignature},
		"change of keys: old machines":   {[]crypto.Signer{a, b, c}, trust(1, a), ""},
		"change of keys: new machines":   {[]crypto.Signer{a, b, c}, trust(2, b, c), ""},
		"new keys only: old machines":    {[]crypto.Signer{b, c}, trust(1, a), BadSignature},
		"old key only: new machines":     {[]crypto.Signer{a}, trust(2, b, c), BadSignature},
		"both kinds, both are necessary": {[]crypto.Signer{a, r}, trust(2, a, r), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify(sign(t, good(), k.signers...), k.trust, machine(issued), Statement{}); CaseOf(err) != k.want || (err == nil) != (k.want == "") {
				t.Errorf("error %v, want %q", err, k.want)
			}
		})
	}
}
