package seed

import (
	"regexp"
	"testing"
)

func TestSeed(t *testing.T) {
	a, again := New([]byte("semper"), []byte("1.0.0")), New([]byte("semper"), []byte("1.0.0"))
	if a != again {
		t.Error("the same parts give different seeds")
	}
	for name, other := range map[string]Seed{
		"another version":      New([]byte("semper"), []byte("1.0.1")),
		"a byte moved across":  New([]byte("semper1"), []byte(".0.0")),
		"parts joined":         New([]byte("semper1.0.0")),
		"parts in other order": New([]byte("1.0.0"), []byte("semper")),
	} {
		if a == other {
			t.Errorf("%s gives the same seed", name)
		}
	}
	if a.Bytes("x") == a.Bytes("y") || a.UUID("x") == a.UUID("y") {
		t.Error("two labels give the same identifier")
	}
	if s := a.UUIDString("x"); !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(s) {
		t.Errorf("%s is no UUID of version 8", s)
	}
	// Identifiers are part of what a release's bytes depend on: a change here changes every release.
	if got, want := New([]byte("vector")).UUIDString("label"), vector; got != want {
		t.Errorf("UUID %s, want %s", got, want)
	}
}

// vector was computed with Python's hashlib and hmac from the package's documentation.
const vector = "ebf2ba1c-d9ca-874c-b10e-cbab3ce09a27"
