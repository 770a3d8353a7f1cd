package freshness

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload/detached"
)

// MaxSize is the size of the largest envelope in bytes: enough for 16 signatures by the largest keys.
const MaxSize = 16 << 10

type envelope struct {
	Document   []byte               `json:"document"`
	Signatures []detached.Signature `json:"signatures"`
}

// Sign returns a statement's envelope with a signature by each signer.
func Sign(s Statement, signers []crypto.Signer) ([]byte, error) {
	doc, err := s.Document()
	if err != nil {
		return nil, err
	}
	list, err := detached.Sign(doc, signers)
	if err != nil {
		return nil, fmt.Errorf("sign the freshness statement: %w", err)
	}
	return encode(envelope{doc, list})
}

// Cosign adds the signatures of more signers to an envelope, for keys that are not all in one place. What was signed by others is kept and not verified.
func Cosign(b []byte, signers []crypto.Signer) ([]byte, error) {
	e, err := decode(b)
	if err != nil {
		return nil, err
	}
	if _, err := parse(e.Document); err != nil {
		return nil, err
	}
	list, err := detached.Sign(e.Document, signers)
	if err != nil {
		return nil, fmt.Errorf("sign the freshness statement: %w", err)
	}
	for _, s := range list {
		e.Signatures = slices.DeleteFunc(e.Signatures, func(have detached.Signature) bool { return have.KeyID == s.KeyID })
		e.Signatures = append(e.Signatures, s)
	}
	if len(e.Signatures) > detached.MaxSignatures {
		return nil, fault.New(fault.Input, "freshness statement: %d signatures, at most %d are possible", len(e.Signatures), detached.MaxSignatures)
	}
	return encode(e)
}

// Unverified returns what an envelope claims WITHOUT looking at its signatures: for a server, which has no keys, and for showing it to people. Errors have the
// kind Input.
func Unverified(b []byte) (Statement, error) {
	e, err := decode(b)
	if err != nil {
		return Statement{}, err
	}
	return parse(e.Document)
}

func encode(e envelope) ([]byte, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	if len(b) > MaxSize {
		return nil, fault.New(fault.Input, "freshness statement: its envelope has %d bytes, at most %d are possible", len(b), MaxSize)
	}
	return b, nil
}

// decode opens an envelope and looks neither at signatures nor into the document.
func decode(b []byte) (envelope, error) {
	bad := func(format string, args ...any) (envelope, error) {
		return envelope{}, fault.New(fault.Input, "freshness envelope: "+format, args...)
	}
	if len(b) > MaxSize {
		return bad("more than %d bytes", MaxSize)
	}
	if bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r > '~' }) {
		return bad("it holds what is not printable ASCII")
	}
	var e envelope
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return bad("%w", err)
	}
	if canonical, err := json.Marshal(e); err != nil || !bytes.Equal(canonical, b) {
		return bad("not in its canonical form")
	}
	return e, nil
}
