package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

func fixed() time.Time { return time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC) }

func texts(l *Log) string {
	var all []string
	for _, line := range l.Matches(0, regexp.MustCompile("")) {
		all = append(all, fmt.Sprintf("%d:%s", line.Number, line.Text))
	}
	return strings.Join(all, "|")
}

func TestLines(t *testing.T) {
	for _, c := range []struct{ name, printed, want string }{
		{"lines", "a\r\nb\r\n\r\nc", "0:a|1:b|2:|3:c"},
		{"colours", "[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mx\x1b[0m.\r\n", "0:[  OK  ] Started x."},
		{"cursor", "one\x1b[2J\x1b[01;01Htwo\x1b[03;01H\x1b[=3hthree", "0:one|1:two|2:three"},
		{"title", "\x1b]0;title\x07x\x1b]8;;http://y\x1b\\z", "0:xz"},
		{"keypad", "\x1b(B\x1b=x\x1bcy", "0:xy"},
		{"long", strings.Repeat("x", 5000) + "\n", "0:" + strings.Repeat("x", 4096)},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole, bytewise := New(nil, fixed), New(nil, fixed)
			fmt.Fprint(whole, c.printed)
			for i := range len(c.printed) {
				fmt.Fprint(bytewise, c.printed[i:i+1])
			}
			if got := texts(whole); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			if texts(bytewise) != texts(whole) {
				t.Errorf("byte by byte: %q", texts(bytewise))
			}
		})
	}
}

func TestWait(t *testing.T) {
	var file bytes.Buffer
	l := New(&file, fixed)
	fmt.Fprint(l, "semper login: ")
	line, err := l.Wait(t.Context(), 0, regexp.MustCompile(`login: $`))
	if err != nil || line.Number != 0 || !line.Time.Equal(fixed()) {
		t.Fatalf("got %+v, %v", line, err)
	}
	mark := l.Mark()
	done := make(chan error)
	go func() {
		_, err := l.Wait(t.Context(), mark, regexp.MustCompile("login"))
		done <- err
	}()
	fmt.Fprint(l, "\r\nboot\r\nsemper login: ")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if file.String() != "semper login: \r\nboot\r\nsemper login: " {
		t.Errorf("the copy is %q", file.String())
	}
}

func TestWaitSaysWhatWasThere(t *testing.T) {
	l := New(nil, fixed)
	for i := range 70 {
		fmt.Fprintf(l, "line %d\n   \n\n", i)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("out of patience"))
	_, err := l.Wait(ctx, 0, regexp.MustCompile("nothing like it"))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"nothing like it", "out of patience", "03:04:05 line 20\n", "line 69\n"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "line 19\n") {
		t.Error("the error shows more than 50 lines")
	}
}

func TestOldLinesGo(t *testing.T) {
	l := New(nil, fixed)
	for i := range 3 * maxLines {
		fmt.Fprintf(l, "%d\n", i)
	}
	all := l.Matches(0, regexp.MustCompile(""))
	if len(all) > maxLines || len(all) < maxLines/2 {
		t.Errorf("%d lines kept", len(all))
	}
	for _, line := range all {
		if line.Text != fmt.Sprint(line.Number) {
			t.Fatalf("line %d reads %q", line.Number, line.Text)
		}
	}
	if l.Mark() != 3*maxLines {
		t.Errorf("mark %d", l.Mark())
	}
}

func FuzzWrite(f *testing.F) {
	f.Add([]byte("a\r\n\x1b[31mb\x1b]0;t\x07\n"))
	f.Add([]byte("\x1b"))
	f.Fuzz(func(t *testing.T, p []byte) {
		l := New(nil, fixed)
		l.Write(p)
		for _, line := range l.Matches(0, regexp.MustCompile("")) {
			if len(line.Text) > maxLine || strings.ContainsAny(line.Text, "\x1b\n\r") {
				t.Errorf("line %q", line.Text)
			}
		}
	})
}
