package installtest

import "math/rand/v2"

// Image returns n bytes that compress as an uncompressed erofs of a distribution does, to 0.4 or so: words of 3 to 18 bytes that come again and again,
// the frequent ones often, among bytes that do not, and runs of zeros. Equal seeds give equal bytes.
func Image(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	words := make([][]byte, 1<<13)
	for i := range words {
		words[i] = make([]byte, 3+rng.IntN(16))
		for j := range words[i] {
			words[i][j] = byte(rng.Uint32())
		}
	}
	b := make([]byte, n)
	for at := 0; at < n; {
		r := rng.Uint64()
		switch r & 0x7fff {
		case 0: // zeros, up to 64 KiB
			at += int(r >> 48)
		default:
			// The square makes low numbers frequent.
			x := (r >> 32) & 0xffff
			at += copy(b[at:], words[x*x>>19])
			for i := r >> 10 & 7; i > 3 && at < n; i-- {
				b[at] = byte(r >> (i * 8))
				at++
			}
		}
	}
	return b
}
