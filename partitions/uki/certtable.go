package uki

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"

	"github.com/semper-os/semper/fault"
)

// WIN_CERTIFICATE, the header of each entry in the certificate table.
const (
	winCertHeader   = 8
	winCertRevision = 0x0200
	winCertPKCS7    = 0x0002
	maxSignatures   = 16
)

// Signed reports whether the file has a certificate table. That says nothing of what is in it.
func (f *File) Signed() bool { return f.pe.signed() }

// Digest returns the file's Authenticode hash with SHA-256: of everything but the checksum, the pointer to the certificate table and the
// table itself, padded with zeros to a multiple of 8 bytes. Because sections follow each other without gaps, that is the same as
// hashing headers, sections and the rest one by one, as the specification has it.
func (f *File) Digest() ([]byte, error) {
	h := sha256.New()
	end := f.pe.hashedEnd()
	for _, part := range [][2]int64{
		{0, f.pe.pe + fieldCheckSum},
		{f.pe.pe + fieldCheckSum + 4, f.pe.pe + fieldCertTable},
		{f.pe.pe + fieldCertTable + 8, end},
	} {
		if err := hashRange(h, f.r, part[0], part[1]); err != nil {
			return nil, err
		}
	}
	h.Write(make([]byte, roundUp(end, 8)-end))
	return h.Sum(nil), nil
}

func hashRange(h hash.Hash, r io.ReaderAt, from, to int64) error {
	n, err := io.Copy(h, io.NewSectionReader(r, from, to-from))
	if err == nil && n != to-from {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fault.New(fault.IO, "hash the EFI program: %w", err)
	}
	return nil
}

// Signatures returns the PKCS #7 signatures of the certificate table, none when there is no table.
func (f *File) Signatures() ([][]byte, error) {
	table := make([]byte, f.pe.certSize)
	if _, err := io.ReadFull(io.NewSectionReader(f.r, int64(f.pe.certOffset), int64(f.pe.certSize)), table); err != nil {
		return nil, fault.New(fault.IO, "read the certificate table: %w", err)
	}
	var signatures [][]byte
	for len(table) > 0 {
		if len(table) < winCertHeader {
			return nil, bad("%d bytes are left over in the certificate table", len(table))
		}
		n := int64(binary.LittleEndian.Uint32(table))
		revision, kind := binary.LittleEndian.Uint16(table[4:]), binary.LittleEndian.Uint16(table[6:])
		if n <= winCertHeader || n > int64(len(table)) || len(signatures) == maxSignatures {
			return nil, bad("entry %d of the certificate table has %d bytes of %d", len(signatures)+1, n, len(table))
		}
		if revision != winCertRevision || kind != winCertPKCS7 {
			return nil, bad("entry %d of the certificate table has revision %#x and type %#x", len(signatures)+1, revision, kind)
		}
		signatures = append(signatures, table[winCertHeader:n])
		table = table[min(roundUp(n, 8), int64(len(table))):]
	}
	return signatures, nil
}

// AddSignature returns an unsigned EFI program with a certificate table that holds one PKCS #7 signature. It refuses a file that
// has a table already (kind Input).
func AddSignature(file, signature []byte) ([]byte, error) {
	p, err := parse(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	if p.signed() {
		return nil, fault.New(fault.Input, "the EFI program is signed already")
	}
	out := make([]byte, 0, len(file)+len(signature)+64)
	out = pad(append(out, file...)) // Digest counts these zeros
	start := len(out)
	le := binary.LittleEndian
	out = le.AppendUint32(out, uint32(winCertHeader+len(signature)))
	out = le.AppendUint16(out, winCertRevision)
	out = le.AppendUint16(out, winCertPKCS7)
	out = pad(append(out, signature...))
	le.PutUint32(out[p.pe+fieldCertTable:], uint32(start))
	le.PutUint32(out[p.pe+fieldCertTable+4:], uint32(len(out)-start))
	if _, err := parse(bytes.NewReader(out), int64(len(out))); err != nil {
		return nil, err
	}
	return out, nil
}

// pad appends zeros up to a multiple of 8 bytes.
func pad(b []byte) []byte {
	return append(b, make([]byte, roundUp(int64(len(b)), 8)-int64(len(b)))...)
}
