package install

import "bytes"

// A slot that is installed again holds what is to be written already, in part or altogether: after an installation that was given up late, or where two
// versions share bytes at the same places. A block that need not be written wears no flash and does not wait in front of the machine's own writes.
//
// Reading in order to find out is lost where nothing is equal, which is the usual case. So the reading stops after 8 MiB without one equal block, and is
// tried again with one piece in each 64 MiB.
const (
	skipBlock = 64 << 10 // what is skipped or written as a whole: smaller pieces are slower to write than larger ones
	skipPiece = 1 << 20  // what is read and compared at a time
	skipGive  = 8        // pieces without an equal block until the reading stops
	skipRetry = 64       // of so many pieces one is read nevertheless
)

// skipper writes to a Region what is not there yet. It is for one goroutine at a time.
type skipper struct {
	*Region
	buf []byte

	misses int // pieces without an equal block, one after the other
	blind  int // pieces written without looking since the last look

	written, skipped int64 // bytes
}

// WriteAt implements payload.Storage.
func (s *skipper) WriteAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		piece := p[done:min(len(p), done+skipPiece)]
		n, err := s.piece(piece, off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (s *skipper) piece(p []byte, off int64) (int, error) {
	if s.misses >= skipGive {
		if s.blind++; s.blind < skipRetry {
			return s.write(p, off)
		}
		s.blind = 0
	}
	if s.buf == nil {
		s.buf = aligned(skipPiece)
	}
	have := s.buf[:len(p)]
	if n, _ := s.ReadAt(have, off); n < len(p) {
		return s.write(p, off) // a block that cannot be read may be healed by being written
	}
	before := s.skipped
	for at := 0; at < len(p); {
		equal, end := sameBlock(p, have, at), at+skipBlock
		for end < len(p) && sameBlock(p, have, end) == equal {
			end += skipBlock
		}
		end = min(end, len(p))
		if equal {
			s.skipped += int64(end - at)
		} else if n, err := s.write(p[at:end], off+int64(at)); err != nil {
			return at + n, err
		}
		at = end
	}
	if s.skipped > before {
		s.misses = 0
	} else {
		s.misses++
	}
	return len(p), nil
}

func sameBlock(a, b []byte, at int) bool {
	end := min(at+skipBlock, len(a))
	return bytes.Equal(a[at:end], b[at:end])
}

func (s *skipper) write(p []byte, off int64) (int, error) {
	n, err := s.Region.WriteAt(p, off)
	s.written += int64(n)
	return n, err
}
