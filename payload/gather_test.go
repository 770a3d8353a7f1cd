package payload

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

type recorder struct {
	data   []byte
	writes int
	fail   error
}

func (r *recorder) WriteAt(p []byte, off int64) (int, error) {
	if r.fail != nil {
		return 0, r.fail
	}
	r.writes++
	return copy(r.data[off:], p), nil
}

// Whatever the order, size and repetition of writes, the bytes are those of the same writes without a gatherer; whole parts are written once.
func TestGatherer(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		want, got := &recorder{data: make([]byte, 4*gatherSize)}, &recorder{data: make([]byte, 4*gatherSize)}
		g := &gatherer{w: got}
		for range rnd.IntN(300) {
			p := bytes.Repeat([]byte{byte(rnd.IntN(255) + 1)}, 4096*(1+rnd.IntN(3)))
			off := int64(rnd.IntN(4*gatherSize/4096-3)) * 4096
			for _, w := range []interface {
				WriteAt([]byte, int64) (int, error)
			}{want, g} {
				if _, err := w.WriteAt(p, off); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := g.flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.data, want.data) {
			t.Fatalf("round %d: other bytes", round)
		}
	}

	got := &recorder{data: make([]byte, 4*gatherSize)}
	g := &gatherer{w: got}
	blocks := rnd.Perm(3 * gatherSize / 4096)
	for _, i := range blocks {
		if _, err := g.WriteAt(make([]byte, 4096), int64(i)*4096); err != nil {
			t.Fatal(err)
		}
	}
	if got.writes != 3 || len(g.parts) != 0 {
		t.Errorf("%d writes and %d parts left, want 3 and 0", got.writes, len(g.parts))
	}
}

func TestGathererFails(t *testing.T) {
	broken := errors.New("broken")
	g := &gatherer{w: &recorder{fail: broken}}
	if _, err := g.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Errorf("a part that is not whole: %v", err)
	}
	if _, err := g.WriteAt(make([]byte, gatherSize), gatherSize); !errors.Is(err, broken) {
		t.Errorf("a whole part: %v", err)
	}
	if err := g.flush(); !errors.Is(err, broken) {
		t.Errorf("the rest: %v", err)
	}
}
