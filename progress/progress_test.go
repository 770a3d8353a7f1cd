package progress

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
)

func TestQuietInAPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := New(w, "work", 100)
	if b != nil {
		t.Fatal("a pipe got a bar")
	}
	b.Add(50)
	b.Done()
	var out bytes.Buffer
	if _, err := io.WriteString(b.Writer(&out), "through"); err != nil || out.String() != "through" {
		t.Errorf("a silent bar's writer: %q, %v", out.String(), err)
	}
	w.Close()
	if said, _ := io.ReadAll(r); len(said) > 0 {
		t.Errorf("a silent bar said %q", said)
	}
}

func TestBar(t *testing.T) {
	var out bytes.Buffer
	b := &Bar{w: &out, label: "work", total: 4 << 20, width: 80}
	if n, err := io.Copy(io.Discard, b.Reader(strings.NewReader(strings.Repeat("x", 1<<20)))); n != 1<<20 || err != nil {
		t.Fatalf("copied %d, %v", n, err)
	}
	out.Reset()
	b.Done()
	line := out.String()
	if full, empty := strings.Count(line, "="), strings.Count(line[strings.Index(line, "["):strings.Index(line, "]")], " "); full == 0 || empty < 2*full || empty > 4*full {
		t.Errorf("a quarter done looks like %q", line)
	}
	if !strings.Contains(line, "1.0 MiB") || !strings.HasSuffix(line, "\n") {
		t.Errorf("last line %q", line)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 3 << 30: "3.00 GiB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %s, want %s", n, got, want)
		}
	}
}
