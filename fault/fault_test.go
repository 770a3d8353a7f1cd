package fault

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestKinds(t *testing.T) {
	inner := New(Network, "fetch %s: %w", "x", io.ErrUnexpectedEOF)
	for _, c := range []struct {
		name string
		err  error
		kind Kind
		word string
		exit int
	}{
		{"nil has no failure", nil, Internal, "internal", 0},
		{"plain error is internal", errors.New("x"), Internal, "internal", 1},
		{"usage exits 2", New(Usage, "no such flag"), Usage, "usage", 2},
		{"wrapped by fmt keeps its kind", fmt.Errorf("publish: %w", inner), Network, "network", 1},
		{"outermost kind wins", Wrap(Verification, inner), Verification, "verification", 1},
		{"input", New(Input, "x"), Input, "input", 1},
		{"io", Wrap(IO, io.EOF), IO, "io", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := KindOf(c.err); got != c.kind || got.String() != c.word {
				t.Errorf("KindOf = %v (%s), want %v (%s)", got, got, c.kind, c.word)
			}
			if got := ExitCode(c.err); got != c.exit {
				t.Errorf("ExitCode = %d, want %d", got, c.exit)
			}
		})
	}
	if !errors.Is(fmt.Errorf("a: %w", inner), io.ErrUnexpectedEOF) {
		t.Error("the cause is lost in the chain")
	}
	if Wrap(IO, nil) != nil {
		t.Error("Wrap(nil) must stay nil")
	}
}
