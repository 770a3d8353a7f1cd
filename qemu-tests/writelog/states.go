package writelog

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/semper-os/semper/fault"
)

const (
	// Of epochs with up to this many writes every subset is a state.
	maxSubset = 6
	// Of epochs with up to this many writes, each is left out alone, and is there alone.
	maxSingle = 128
	// How often a draw that gave a state that was there already is repeated.
	redraws = 4
)

// Plan says which states to make.
type Plan struct {
	// Seed is where drawn states come from: the same for the same log and seed.
	Seed uint64
	// Draws is how many states are drawn over the whole log; states that are equal count once. It may be missed where the log has too few.
	Draws int
	// Weight is an epoch's share of the draws; nil: the number of its sectors, from 1 to 64.
	Weight func(Epoch) int
}

// Replay makes states of one log over one base.
type Replay struct {
	log    *Log
	epochs []Epoch
	base   io.ReaderAt
	size   int64
}

// Replay prepares the states of a disk of size bytes that held base when the log began.
func (l *Log) Replay(base io.ReaderAt, size int64) (*Replay, error) {
	if size <= 0 || size > maxDisk || size%sectorSize != 0 {
		return nil, fault.New(fault.Input, "a disk of %d bytes", size)
	}
	for i := range l.Entries {
		if e := &l.Entries[i]; e.Writes() && e.Offset+e.Length > size {
			return nil, fault.New(fault.Input, "write log: entry %d ends at %d, the disk at %d", i, e.Offset+e.Length, size)
		}
	}
	return &Replay{log: l, epochs: l.Epochs(), base: base, size: size}, nil
}

// Epochs returns the log's epochs.
func (r *Replay) Epochs() []Epoch { return r.epochs }

func (r *Replay) start() *State {
	chunks := (r.size + chunkSize - 1) / chunkSize
	return &State{base: r.base, size: r.size, log: r.log.from, before: make([]*chunk, chunks), diff: map[int]*chunk{}, Entry: -1}
}

// Boundaries yields the disk before the first write, named write--1, and after each write in order.
func (r *Replay) Boundaries() iter.Seq[*State] {
	return func(yield func(*State) bool) {
		s := r.start()
		s.Name = boundaryName(-1)
		if !yield(s) {
			return
		}
		for n, epoch := range r.epochs {
			for _, i := range epoch.Writes {
				s.set(&r.log.Entries[i], nil, true)
				s.Name, s.Epoch, s.Entry = boundaryName(i), n, i
				if !yield(s) {
					return
				}
			}
		}
	}
}

// Cuts yields the states within epochs: for each the subsets of a small one, or the single writes of a larger one, then the plan's draws. No two of an epoch
// are the same.
func (r *Replay) Cuts(p Plan) iter.Seq[*State] {
	return func(yield func(*State) bool) {
		s := r.start()
		draws := r.share(p)
		for n, epoch := range r.epochs {
			seen := map[[sha256.Size]byte]bool{s.difference(): true} // the epoch's beginning is a boundary
			emit := func(recipe string) (fresh, on bool) {
				r.apply(s, n, recipe)
				d := s.difference()
				if seen[d] {
					return false, true
				}
				seen[d] = true
				return true, yield(s)
			}
			for _, recipe := range systematic(epoch) {
				if _, on := emit(recipe); !on {
					return
				}
			}
			seeds := rand.New(rand.NewPCG(p.Seed, uint64(n)))
			for left, tries := draws[n], draws[n]*redraws; left > 0 && tries > 0; tries-- {
				fresh, on := emit(fmt.Sprintf("seed-%016x", seeds.Uint64()))
				if !on {
					return
				}
				if fresh {
					left--
				}
			}
			s.reset()
			for _, i := range epoch.Writes {
				s.set(&r.log.Entries[i], nil, true)
			}
		}
	}
}

// difference identifies how the state differs from what is durable.
func (s *State) difference() [sha256.Size]byte {
	numbers := make([]int, 0, len(s.diff))
	for n := range s.diff {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	h := sha256.New()
	for _, n := range numbers {
		var old [sha256.Size]byte
		if c := s.before[n]; c != nil {
			old = *c.sum()
		} else {
			old = blank
		}
		if sum := s.diff[n].sum(); *sum != old {
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
			h.Write(sum[:])
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

var blank = hashPlaces(make([]uint32, chunkSectors))

// share divides the draws among the epochs.
func (r *Replay) share(p Plan) []int {
	weight := p.Weight
	if weight == nil {
		weight = r.sectors
	}
	weights, sum := make([]int, len(r.epochs)), 0
	for n, epoch := range r.epochs {
		if len(epoch.Writes) > 0 {
			weights[n] = max(0, weight(epoch))
		}
		sum += weights[n]
	}
	draws := make([]int, len(r.epochs))
	for n, w := range weights {
		if w > 0 {
			draws[n] = (p.Draws*w + sum - 1) / sum
		}
	}
	return draws
}

func (r *Replay) sectors(epoch Epoch) int {
	n := int64(0)
	for _, i := range epoch.Writes {
		n += r.log.Entries[i].Length / sectorSize
	}
	return int(min(64, n))
}

func systematic(epoch Epoch) []string {
	var all []string
	n := len(epoch.Writes)
	switch {
	case n <= maxSubset:
		for bits := 1; bits < 1<<n-1; bits++ { // none and all are boundaries
			all = append(all, fmt.Sprintf("subset-%x", bits))
		}
	case n <= maxSingle:
		for i := range n {
			all = append(all, fmt.Sprintf("without-%d", i), fmt.Sprintf("only-%d", i))
		}
	}
	return all
}

// At makes the state of a name.
func (r *Replay) At(name string) (*State, error) {
	bad := fault.New(fault.Usage, "no state of this log has the name %q", name)
	if text, ok := strings.CutPrefix(name, "write-"); ok {
		last, err := strconv.Atoi(text)
		if err != nil || last < -1 || last >= len(r.log.Entries) {
			return nil, bad
		}
		for s := range r.Boundaries() {
			if s.Entry == last {
				return s, nil
			}
		}
		return nil, bad
	}
	text, ok := strings.CutPrefix(name, "epoch-")
	number, recipe, ok2 := strings.Cut(text, "-")
	n, err := strconv.Atoi(number)
	if !ok || !ok2 || err != nil || n < 0 || n >= len(r.epochs) {
		return nil, bad
	}
	s := r.start()
	for _, epoch := range r.epochs[:n] {
		for _, i := range epoch.Writes {
			s.set(&r.log.Entries[i], nil, true)
		}
	}
	if !r.apply(s, n, recipe) {
		return nil, bad
	}
	return s, nil
}

func boundaryName(entry int) string { return fmt.Sprintf("write-%d", entry) }

// apply makes s, which has all epochs before epoch n, the state of a recipe.
func (r *Replay) apply(s *State, n int, recipe string) bool {
	s.reset()
	epoch := r.epochs[n]
	s.Name, s.Epoch, s.Entry = fmt.Sprintf("epoch-%d-%s", n, recipe), n, epoch.Last-1
	kind, text, _ := strings.Cut(recipe, "-")
	base := 10
	if kind == "subset" || kind == "seed" {
		base = 16
	}
	value, err := strconv.ParseUint(text, base, 64)
	if err != nil {
		return false
	}
	var keep func(k int) bool
	switch {
	case kind == "subset":
		keep = func(k int) bool { return value>>k&1 != 0 }
	case kind == "without" && value < uint64(len(epoch.Writes)):
		keep = func(k int) bool { return k != int(value) }
	case kind == "only" && value < uint64(len(epoch.Writes)):
		keep = func(k int) bool { return k == int(value) }
	case kind == "seed":
		r.draw(s, epoch, rand.New(rand.NewPCG(value, 0)))
		return true
	default:
		return false
	}
	// What has FUA is there unless the cut came before, and it can only have come after the last write that is there.
	last := -1
	for k := range epoch.Writes {
		if keep(k) {
			last = k
		}
	}
	for k, i := range epoch.Writes {
		if e := &r.log.Entries[i]; keep(k) || e.Flags&FUA != 0 && k < last {
			s.set(e, nil, false)
		}
	}
	return true
}

// draw applies what a drawn cut leaves of an epoch. The share of writes that are there and of those that are torn is drawn too, so that nearly everything and
// nearly nothing are as likely as the half.
func (r *Replay) draw(s *State, epoch Epoch, rnd *rand.Rand) {
	cut := len(epoch.Writes)
	if rnd.IntN(2) == 0 {
		cut = 1 + rnd.IntN(cut)
	}
	s.Entry = epoch.Writes[cut-1]
	written, torn := rnd.Float64(), rnd.Float64()*rnd.Float64()
	order := slices.Clone(epoch.Writes[:cut])
	through := slices.ContainsFunc(order, func(i int) bool { return r.log.Entries[i].Flags&FUA != 0 })
	if rnd.IntN(2) == 0 && !through { // what has FUA is not overwritten by what came before
		rnd.Shuffle(cut, func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	for _, i := range order {
		e := &r.log.Entries[i]
		switch {
		case e.Flags&FUA != 0:
			s.set(e, nil, false)
		case rnd.Float64() >= written:
		case rnd.Float64() < torn && e.Length > sectorSize:
			s.set(e, tear(rnd, int(e.Length/sectorSize)), false)
		default:
			s.set(e, nil, false)
		}
	}
}

// tear draws which sectors of a write are there: the first ones, the last ones, or any.
func tear(rnd *rand.Rand, sectors int) func(int) bool {
	at := 1 + rnd.IntN(sectors-1)
	switch rnd.IntN(4) {
	case 0, 1:
		return func(i int) bool { return i < at }
	case 2:
		return func(i int) bool { return i >= at }
	default:
		return func(int) bool { return rnd.IntN(2) == 0 }
	}
}
