package verity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/semper-os/semper/fault"
)

// area is a data or hash area in memory, which grows as it is written.
type area struct {
	b  []byte
	mu sync.Mutex
}

func areaOf(b []byte) *area { return &area{b: b} }

func (a *area) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(a.b).ReadAt(p, off) }

func (a *area) WriteAt(p []byte, off int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if need := int(off) + len(p); need > len(a.b) {
		a.b = append(a.b, make([]byte, need-len(a.b))...)
	}
	return copy(a.b[off:], p), nil
}

var testUUID = [16]byte{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x8e, 0xf0, 0x81, 2, 3, 4, 5, 6, 7, 8}

// random returns the same bytes for the same seed each time.
func random(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

func format(t testing.TB, data []byte, salt []byte) (*area, Result) {
	t.Helper()
	hash := &area{}
	res, err := Format(bytes.NewReader(data), int64(len(data)), hash, Params{UUID: testUUID, Salt: salt})
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(hash.b)) != res.HashAreaSize || res.HashAreaSize != HashAreaSize(uint64(len(data)/BlockSize)) {
		t.Fatalf("%d bytes were written, the result says %d, HashAreaSize %d", len(hash.b), res.HashAreaSize, HashAreaSize(uint64(len(data)/BlockSize)))
	}
	return hash, res
}

func TestHashAreaSize(t *testing.T) {
	for _, tt := range []struct{ blocks, area uint64 }{
		{0, 1},
		{1, 1},
		{2, 2},
		{127, 2},
		{128, 2},
		{129, 1 + 1 + 2},
		{128*128 - 1, 1 + 1 + 128},
		{128 * 128, 1 + 1 + 128},
		{128*128 + 1, 1 + 1 + 2 + 129},
		{128 * 128 * 128, 1 + 1 + 128 + 128*128},
		{128*128*128 + 1, 1 + 1 + 2 + 129 + 128*128 + 1},
	} {
		if got := HashAreaSize(tt.blocks); got != int64(tt.area)*BlockSize {
			t.Errorf("HashAreaSize(%d) is %d blocks, want %d", tt.blocks, got/BlockSize, tt.area)
		}
	}
	if got := HashAreaSize(1<<64 - 1); got <= 0 {
		t.Errorf("HashAreaSize of everything is %d", got)
	}
}

func TestFormatRefuses(t *testing.T) {
	for _, size := range []int64{-4096, 0, 1, 4095, 4097} {
		if _, err := Format(areaOf(make([]byte, 8192)), size, &area{}, Params{}); !fault.Is(err, fault.Input) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if _, err := Format(areaOf(make([]byte, 8192)), 8192, &area{}, Params{Salt: make([]byte, 257)}); !fault.Is(err, fault.Input) {
		t.Errorf("salt of 257 bytes: %v", err)
	}
	short := areaOf(make([]byte, 300*BlockSize))
	if _, err := Format(short, 400*BlockSize, &area{}, Params{}); !fault.Is(err, fault.IO) || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "block 300") {
		t.Errorf("data that ends early: %v", err)
	}
}

// Format must not depend on what the partition held before.
func TestFormatOverOldBytes(t *testing.T) {
	data := random(1, 130*BlockSize)
	fresh, _ := format(t, data, []byte("salt"))
	old := areaOf(bytes.Repeat([]byte{0xff}, len(fresh.b)))
	if _, err := Format(bytes.NewReader(data), int64(len(data)), old, Params{UUID: testUUID, Salt: []byte("salt")}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(old.b, fresh.b) {
		t.Error("bytes of before shine through")
	}
}

func TestReader(t *testing.T) {
	for _, blocks := range []int{1, 2, 128, 129, 300} {
		data := random(uint64(blocks), blocks*BlockSize)
		hash, res := format(t, data, random(7, 32))
		// Both areas are larger than what the tree covers, as on a disk.
		disk, hashes := areaOf(append(bytes.Clone(data), make([]byte, 5000)...)), areaOf(append(bytes.Clone(hash.b), 1, 2, 3))
		r, err := NewReader(disk, int64(len(disk.b)), hashes, int64(len(hashes.b)), res.RootHash)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(r, 0, 1<<40))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d blocks: read %d bytes, %v", blocks, len(got), err)
		}
		odd := make([]byte, 5000)
		if n, err := r.ReadAt(odd, 100); blocks > 2 && (n != 5000 || err != nil || !bytes.Equal(odd, data[100:5100])) {
			t.Errorf("%d blocks: an odd read gave %d, %v", blocks, n, err)
		}
		if n, err := r.ReadAt(odd, int64(len(data)-10)); n != 10 || !errors.Is(err, io.EOF) {
			t.Errorf("%d blocks: at the end: %d, %v", blocks, n, err)
		}
		if sb, err := VerifyAll(disk, int64(len(disk.b)), hashes, int64(len(hashes.b)), res.RootHash); err != nil || sb.DataBlocks != uint64(blocks) || sb.UUID != testUUID {
			t.Errorf("VerifyAll: %+v, %v", sb, err)
		}
		if sb, err := CheckTop(disk, int64(len(disk.b)), hashes, int64(len(hashes.b)), res.RootHash); err != nil || !bytes.Equal(sb.Salt, random(7, 32)) {
			t.Errorf("CheckTop: %+v, %v", sb, err)
		}
	}
}

func TestOneBit(t *testing.T) {
	const blocks = 128*128 + 200 // three levels: top at 1, two blocks at 2, 130 leaves at 4
	data := random(3, blocks*BlockSize)
	hash, res := format(t, data, random(4, 32))
	tests := []struct {
		name    string
		in      []byte
		at      int
		level   int
		block   uint64
		topOK   bool
		message string
	}{
		{"first data block", data, 5, -1, 0, false, "data block 0 does not match"},
		{"a data block", data, 9000*BlockSize + 4095, -1, 9000, true, "data block 9000 does not match"},
		{"last data block", data, len(data) - 1, -1, blocks - 1, true, "data block 16583 does not match"},
		{"top", hash.b, 1*BlockSize + 3, 2, 1, false, "hash block 1 (level 2 of the tree)"},
		{"middle", hash.b, 3*BlockSize + 3, 1, 3, true, "hash block 3 (level 1 of the tree)"},
		{"middle, above block 0", hash.b, 2*BlockSize + 3, 1, 2, false, "hash block 2 (level 1 of the tree)"},
		{"first leaf", hash.b, 4*BlockSize + 3, 0, 4, false, "hash block 4 (level 0 of the tree)"},
		{"last leaf, behind its digests", hash.b, len(hash.b) - 1, 0, 133, true, "hash block 133 (level 0 of the tree)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in[tt.at] ^= 0x10
			defer func() { tt.in[tt.at] ^= 0x10 }()
			check := func(what string, err error) {
				t.Helper()
				var block *BlockError
				if !errors.As(err, &block) || block.Level != tt.level || block.Block != tt.block || !fault.Is(err, fault.Verification) || !strings.Contains(err.Error(), tt.message) {
					t.Errorf("%s: %v, want level %d, block %d", what, err, tt.level, tt.block)
				}
			}
			_, err := VerifyAll(bytes.NewReader(data), int64(len(data)), hash, int64(len(hash.b)), res.RootHash)
			check("VerifyAll", err)
			_, err = CheckTop(bytes.NewReader(data), int64(len(data)), hash, int64(len(hash.b)), res.RootHash)
			if tt.topOK && err != nil {
				t.Errorf("CheckTop: %v", err)
			} else if !tt.topOK {
				check("CheckTop", err)
			}
			r, err := NewReader(bytes.NewReader(data), int64(len(data)), hash, int64(len(hash.b)), res.RootHash)
			if err == nil {
				var got bytes.Buffer
				_, err = io.Copy(&got, io.NewSectionReader(r, 0, r.Size()))
				if !bytes.HasPrefix(data, got.Bytes()) && tt.level >= 0 {
					t.Error("Reader gave out bytes that are not the data's")
				}
				if tt.level < 0 && uint64(got.Len()) != tt.block*BlockSize {
					t.Errorf("Reader gave out %d bytes", got.Len())
				}
			}
			check("Reader", err)
		})
	}
	// Several at once: the first is named, whichever core finds it.
	for _, at := range []int{700, 5000, 5001, 16000} {
		data[at*BlockSize] ^= 1
	}
	for range 20 {
		_, err := VerifyAll(bytes.NewReader(data), int64(len(data)), hash, int64(len(hash.b)), res.RootHash)
		var block *BlockError
		if !errors.As(err, &block) || block.Block != 700 {
			t.Fatalf("got %v, want block 700", err)
		}
	}
}

func TestRefusals(t *testing.T) {
	data := random(5, 200*BlockSize)
	hash, res := format(t, data, random(6, 32))
	other := res.RootHash
	other[31] ^= 1
	tests := []struct {
		name               string
		dataSize, hashSize int64
		edit               func(b []byte)
		root               RootHash
		kind               fault.Kind
		says               string
	}{
		{"another root hash", int64(len(data)), int64(len(hash.b)), nil, other, fault.Verification, "hash block 1 (level 1"},
		{"data cut short", int64(len(data)) - 1, int64(len(hash.b)), nil, res.RootHash, fault.Input, "200 data blocks, there are only 199"},
		{"negative size", -1, int64(len(hash.b)), nil, res.RootHash, fault.Input, "there are only 0"},
		{"hash area cut short", int64(len(data)), int64(len(hash.b)) - 1, nil, res.RootHash, fault.Input, "a hash area of"},
		{"no superblock", int64(len(data)), int64(len(hash.b)), func(b []byte) { clear(b[:512]) }, res.RootHash, fault.Input, "there is none"},
		{"version", int64(len(data)), int64(len(hash.b)), func(b []byte) { b[8] = 2 }, res.RootHash, fault.Input, "version 2"},
		{"Chrome OS type", int64(len(data)), int64(len(hash.b)), func(b []byte) { b[12] = 0 }, res.RootHash, fault.Input, "hash type 0"},
		{"sha512", int64(len(data)), int64(len(hash.b)), func(b []byte) { copy(b[32:], "sha512") }, res.RootHash, fault.Input, "sha512"},
		{"block size", int64(len(data)), int64(len(hash.b)), func(b []byte) { b[65] = 0x20 }, res.RootHash, fault.Input, "blocks of 8192"},
		{"no data", int64(len(data)), int64(len(hash.b)), func(b []byte) { clear(b[72:80]) }, res.RootHash, fault.Input, "0 data blocks"},
		{"too much data", int64(len(data)), int64(len(hash.b)), func(b []byte) { b[79] = 0xff }, res.RootHash, fault.Input, "data blocks"},
		{"long salt", int64(len(data)), int64(len(hash.b)), func(b []byte) { b[81] = 2 }, res.RootHash, fault.Input, "a salt of"},
		{"another salt", int64(len(data)), int64(len(hash.b)), func(b []byte) { b[88] ^= 1 }, res.RootHash, fault.Verification, "does not match"},
		{"more behind the salt", int64(len(data)), int64(len(hash.b)), func(b []byte) { b[88+32] = 1 }, res.RootHash, fault.Input, "must be zero"},
		{"more in the gap", int64(len(data)), int64(len(hash.b)), func(b []byte) { b[83] = 1 }, res.RootHash, fault.Input, "must be zero"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(hash.b)
			if tt.edit != nil {
				tt.edit(b)
			}
			for name, check := range map[string]func(io.ReaderAt, int64, io.ReaderAt, int64, RootHash) (Superblock, error){"CheckTop": CheckTop, "VerifyAll": VerifyAll} {
				if _, err := check(bytes.NewReader(data), tt.dataSize, areaOf(b), tt.hashSize, tt.root); err == nil || !fault.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%s: %v (%s), want %s and %q", name, err, fault.KindOf(err), tt.kind, tt.says)
				}
			}
		})
	}
	if _, err := CheckTop(bytes.NewReader(data), int64(len(data)), areaOf(hash.b[:100]), int64(len(hash.b)), res.RootHash); !fault.Is(err, fault.IO) {
		t.Errorf("a hash area that cannot be read: %v", err)
	}
}

func TestRootHashText(t *testing.T) {
	_, res := format(t, random(1, BlockSize), nil)
	if again, err := ParseRootHash(res.RootHash.String()); err != nil || again != res.RootHash {
		t.Errorf("%s: %v", again, err)
	}
	if again, err := ParseRootHash(strings.ToUpper(res.RootHash.String())); err != nil || again != res.RootHash {
		t.Errorf("upper case: %s: %v", again, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("0", 63), strings.Repeat("0", 66), strings.Repeat("g", 64)} {
		if _, err := ParseRootHash(bad); !fault.Is(err, fault.Input) {
			t.Errorf("ParseRootHash(%q): %v", bad, err)
		}
	}
}

func FuzzSuperblock(f *testing.F) {
	good, err := Superblock{UUID: testUUID, DataBlocks: 5, Salt: []byte("salt")}.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		sb, err := ParseSuperblock(b)
		if err != nil {
			return
		}
		again, err := sb.Marshal()
		if err != nil || !bytes.Equal(again, b[:SuperblockSize]) {
			t.Fatalf("%+v does not give its bytes back: %v", sb, err)
		}
	})
}

// FuzzReader hands a hostile hash area to all that reads one. Whatever is read without an error must be the data.
func FuzzReader(f *testing.F) {
	data := random(8, 300*BlockSize)
	hash, res := format(f, data, []byte("salt"))
	f.Add(uint16(0), []byte{}, uint64(300), uint16(4))
	f.Add(uint16(4096), []byte{1}, uint64(129), uint16(4))
	f.Add(uint16(88), []byte("pepper"), uint64(1<<40), uint16(6))
	f.Fuzz(func(t *testing.T, at uint16, patch []byte, blocks uint64, salt uint16) {
		b := bytes.Clone(hash.b)
		copy(b[min(int(at), len(b)):], patch)
		for i := range 8 {
			b[72+i] = byte(blocks >> (8 * i))
		}
		b[80], b[81] = byte(salt), byte(salt>>8)
		_, allErr := VerifyAll(bytes.NewReader(data), int64(len(data)), areaOf(b), int64(len(b)), res.RootHash)
		r, err := NewReader(bytes.NewReader(data), int64(len(data)), areaOf(b), int64(len(b)), res.RootHash)
		if err != nil {
			if allErr == nil {
				t.Fatalf("VerifyAll accepts what Reader refuses: %v", err)
			}
			return
		}
		got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
		if !bytes.HasPrefix(data, got) {
			t.Fatal("Reader gave out bytes that are not the data's")
		}
		if (err == nil) != (allErr == nil) {
			t.Fatalf("Reader says %v, VerifyAll %v", err, allErr)
		}
	})
}

func hexOf(b []byte) string {
	if len(b) == 0 {
		return "-"
	}
	return hex.EncodeToString(b)
}
