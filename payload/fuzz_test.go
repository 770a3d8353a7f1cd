package payload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"testing"
)

func FuzzParseHeader(f *testing.F) {
	f.Add(Header{100, 10}.append(nil))
	f.Add(Header{MaxManifestSize, MaxSignaturesSize}.append(nil))
	f.Add([]byte(Magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			if ReasonOf(err) == "" {
				t.Errorf("no reason: %v", err)
			}
			return
		}
		if !bytes.Equal(h.append(nil), b[:HeaderSize]) {
			t.Error("writing the header again gives other bytes")
		}
		if h.MetadataSize() > HeaderSize+MaxManifestSize+MaxSignaturesSize {
			t.Errorf("metadata of %d bytes", h.MetadataSize())
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	b := write(f, testOptions(testContents(), keyA))
	h, err := ParseHeader(b)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[HeaderSize : HeaderSize+h.ManifestSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(Header{uint64(len(b)), 1}, b)
		if err != nil {
			if ReasonOf(err) == "" {
				t.Errorf("no reason: %v", err)
			}
			return
		}
		var blobs int64
		written := map[int]int64{}
		for _, op := range m.operations {
			if op.offset != blobs {
				t.Errorf("a blob at %d, want %d", op.offset, blobs)
			}
			blobs += op.length
			for _, e := range op.dst {
				if e.start < 0 || e.size <= 0 || e.start+e.size > m.Partitions[op.partition].Size {
					t.Errorf("extent %+v of %+v", e, m.Partitions[op.partition])
				}
				written[op.partition] += e.size
			}
		}
		for i, p := range m.Partitions {
			if written[i] != p.Size {
				t.Errorf("partition %q has %d bytes, %d are written", p.Name, p.Size, written[i])
			}
		}
		again, err := m.encode(77)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseManifest(Header{uint64(len(again)), 1}, again); err != nil {
			t.Errorf("what was accepted, and written again, is refused: %v", err)
		}
	})
}

// FuzzApply applies whatever manifest and blobs, signed by the right key: what lies behind the signature must hold as well.
func FuzzApply(f *testing.F) {
	contents := map[string][]byte{"root": content(1, 64<<10), "uki": content(2, 5000)}
	o := testOptions(contents, keyA)
	o.ChunkSize = 16 << 10
	p := takeApart(f, write(f, o))
	raw := p.assemble(f)
	h, err := ParseHeader(raw)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw[HeaderSize:HeaderSize+h.ManifestSize], p.blobs)
	f.Fuzz(func(t *testing.T, manifest, blobs []byte) {
		if len(manifest) == 0 || len(manifest) > 64<<10 {
			return
		}
		b := (&parts{version: MajorVersion, raw: manifest, blobs: blobs, metadataSigners: p.metadataSigners, signers: p.signers}).assemble(t)
		disks := map[string]*disk{"root": newDisk(128 << 10), "uki": newDisk(8192)}
		res, err := apply(b, applyOptions(disks, trust(1, keyA)))
		if err != nil {
			if ReasonOf(err) == "" {
				t.Errorf("no reason: %v", err)
			}
			return
		}
		for _, part := range res.Manifest.Partitions {
			if sha256.Sum256(disks[part.Name].durable[:part.Size]) != part.SHA256 {
				t.Errorf("partition %q is not what the manifest says, and was accepted", part.Name)
			}
		}
	})
}

// FuzzReader gives foreign bytes to everything that reads a whole payload. Nothing that is not signed may be accepted.
func FuzzReader(f *testing.F) {
	good := write(f, testOptions(map[string][]byte{"root": content(4, 20000)}, keyB))
	f.Add(good)
	f.Add(good[:300])
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx := context.Background()
		_, _ = Inspect(ctx, bytes.NewReader(b), int64(len(b)))
		disks := map[string]*disk{"root": newDisk(32 << 10)}
		if _, err := apply(b, applyOptions(disks, trust(1, keyA))); ReasonOf(err) == "" {
			t.Errorf("accepted, or no reason: %v", err)
		}
		checkUntouched(t, disks)
		if _, err := Check(ctx, bytes.NewReader(b), int64(len(b)), trust(1, keyA), nil); ReasonOf(err) == "" {
			t.Errorf("accepted, or no reason: %v", err)
		}
	})
}

func FuzzParseSignatures(f *testing.F) {
	b, err := sign(nil, sha256.Sum256(nil), testOptions(nil, keyA, keyB).Signers)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		sigs, err := parseSignatures("metadata", b)
		if err == nil && (len(sigs) == 0 || len(sigs) > maxSignatures) {
			t.Errorf("%d signatures", len(sigs))
		}
		if _, err := trust(1, keyC).verify("metadata", sha256.Sum256(nil), b); err == nil {
			t.Error("a key that signed nothing is said to have signed")
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	b := write(f, testOptions(testContents(), keyA))
	o := applyOptions(testDisks(testContents()), trust(1, keyA))
	o.Checkpoint = func(c *Checkpoint) error {
		enc, err := c.MarshalBinary()
		f.Add(enc[:len(enc)-sha256.Size])
		return err
	}
	if _, err := apply(b, o); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		sum := sha256.Sum256(body) // with the right sum, or nothing would ever get further
		enc := append(bytes.Clone(body), sum[:]...)
		c, err := ParseCheckpoint(enc)
		if err != nil {
			if ReasonOf(err) != BadCheckpoint {
				t.Errorf("reason %q: %v", ReasonOf(err), err)
			}
			return
		}
		again, err := c.MarshalBinary()
		if err != nil || !bytes.Equal(again, enc) {
			t.Errorf("writing it again gives other bytes (%v)", err)
		}
		if _, err := Resume(applyOptions(testDisks(testContents()), trust(1, keyA)), c); err != nil && ReasonOf(err) == "" {
			t.Errorf("no reason: %v", err)
		}
	})
}

func FuzzParsePublicKeys(f *testing.F) {
	f.Add(publicPEM(f, keyA.Public()))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := ParsePublicKeys(b)
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys, error %v", len(keys), err)
		}
	})
}
