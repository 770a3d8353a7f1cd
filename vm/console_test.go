package vm

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestEscapeKeys(t *testing.T) {
	for _, c := range []struct {
		typed, passed string
		quits, resets int
	}{
		{"ls\r", "ls\r", 0, 0},
		{"a\x01xb", "ab", 1, 0},
		{"a\x01Xb\x01R", "ab", 1, 1},
		{"\x01\x01", "\x01", 0, 0},
		{"\x01\x01x", "\x01x", 0, 0},
		{"\x01q\x03", "q\x03", 0, 0},
		{"\x01", "", 0, 0},
	} {
		for name, in := range map[string]io.Reader{"whole": strings.NewReader(c.typed), "by byte": iotest.OneByteReader(strings.NewReader(c.typed))} {
			quits, resets := 0, 0
			got, err := io.ReadAll(&escapeReader{in: in, quit: func() { quits++ }, reset: func() { resets++ }})
			if err != nil || string(got) != c.passed || quits != c.quits || resets != c.resets {
				t.Errorf("%q %s: passed %q, %d quits, %d resets, %v", c.typed, name, got, quits, resets, err)
			}
		}
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var s tail
	if s.last() != "it said nothing" {
		t.Errorf("got %q", s.last())
	}
	for range 100 {
		s.Write(bytes.Repeat([]byte("x"), 100))
	}
	s.Write([]byte("the reason\n"))
	if got := s.last(); len(got) > 4096 || !strings.HasSuffix(got, "xthe reason") {
		t.Errorf("got %d bytes, …%q", len(got), got[len(got)-20:])
	}
}
