package freshness

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload/detached"
)

// TestLargestFits: sixteen signatures by the largest kind of key fit into an envelope.
func TestLargestFits(t *testing.T) {
	s := good()
	s.Product, s.Channel, s.Architecture, s.Version = strings.Repeat("p", 64), strings.Repeat("c", 64), strings.Repeat("a", 64), strings.Repeat("1", 64)
	doc, err := s.Document()
	if err != nil || len(doc) > maxDocument {
		t.Fatalf("document of %d bytes (%v)", len(doc), err)
	}
	list, err := detached.Sign(doc, []crypto.Signer{rsaKey()})
	if err != nil {
		t.Fatal(err)
	}
	e := envelope{Document: doc}
	for i := range detached.MaxSignatures {
		sig := list[0]
		sig.KeyID = fmt.Sprintf("%064d", i)
		e.Signatures = append(e.Signatures, sig)
	}
	if b, err := encode(e); err != nil {
		t.Error(err)
	} else {
		t.Logf("the largest envelope has %d of %d bytes", len(b), MaxSize)
	}
}

func TestCosign(t *testing.T) {
	a, b := ecKeys()[0], ecKeys()[1]
	first := sign(t, good(), a)
	both, err := Cosign(first, []crypto.Signer{b})
	if err != nil || !bytes.Equal(both, sign(t, good(), a, b)) {
		t.Fatalf("cosigned %s (%v)", both, err)
	}
	if _, err := Verify(both, trust(2, a, b), machine(issued), Statement{}); err != nil {
		t.Error(err)
	}
	if again, err := Cosign(both, []crypto.Signer{b}); err != nil || !bytes.Equal(again, both) {
		t.Errorf("signed again %s (%v)", again, err)
	}
	if s, err := Unverified(both); err != nil || s != good() {
		t.Errorf("unverified %+v (%v)", s, err)
	}
	for name, bad := range map[string][]byte{"no envelope": []byte("{}"), "no document": seal(t, []byte("{}")), "nothing": nil} {
		if _, err := Cosign(bad, []crypto.Signer{b}); !fault.Is(err, fault.Input) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Cosign(first, nil); !fault.Is(err, fault.Input) {
		t.Errorf("nobody signs: %v", err)
	}
}

// seal signs any bytes as if they were a statement.
func seal(t testing.TB, doc []byte) []byte {
	t.Helper()
	list, err := detached.Sign(doc, ecKeys()[:1])
	if err != nil {
		t.Fatal(err)
	}
	b, err := encode(envelope{doc, list})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSignedByTheRightKeys is about what the right keys have signed and what is still no statement: other documents of theirs, other forms of the same.
func TestSignedByTheRightKeys(t *testing.T) {
	doc, err := good().Document()
	if err != nil {
		t.Fatal(err)
	}
	text := string(doc)
	for name, d := range map[string]string{
		"a release's manifest": "{\n  \"format\": 1,\n  \"name\": \"semper\",\n  \"version\": \"1.2.0\"\n}\n",
		"a payload":            "CrAU\x00\x00\x00\x00\x00\x00\x00\x02",
		"another format":       strings.Replace(text, `"format":1`, `"format":2`, 1),
		"another type":         strings.Replace(text, `"freshness"`, `"staleness"`, 1),
		"white space":          text + "\n",
		"a field more":         strings.Replace(text, `,"sequence"`, `,"note":"x","sequence"`, 1),
		"a field twice":        strings.Replace(text, `"version":"1.2.0"`, `"version":"1.1.0","version":"1.2.0"`, 1),
		"a field less":         strings.Replace(text, `"channel":"stable",`, "", 1),
		"another order":        strings.Replace(text, `"product":"semper","channel":"stable"`, `"channel":"stable","product":"semper"`, 1),
		"another spelling":     strings.Replace(text, `"product"`, `"Product"`, 1),
		"time with a zone":     strings.Replace(text, `03:04:05Z`, `04:04:05+01:00`, 1),
		"31 February":          strings.Replace(text, `2026-01-02`, `2026-02-31`, 1),
		"negative number":      strings.Replace(text, `1767323045`, `-1`, 1),
		"number as text":       strings.Replace(text, `1767323045`, `"1767323045"`, 1),
		"very long":            text + strings.Repeat(" ", maxDocument),
		"nothing":              "",
		"null":                 "null",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Verify(seal(t, []byte(d)), trust(1, ecKeys()[0]), machine(issued), Statement{})
			if CaseOf(err) != Malformed || !fault.Is(err, fault.Input) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestBadEnvelopes(t *testing.T) {
	b := sign(t, good(), ecKeys()[0], ecKeys()[1])
	text := string(b)
	doc, _ := good().Document()
	other, _ := at(0, "1.3.0").Document()
	for name, c := range map[string]struct {
		b    string
		want Case
	}{
		"nothing":             {"", Malformed},
		"null":                {"null", Malformed},
		"newline":             {text + "\n", Malformed},
		"white space":         {strings.Replace(text, ",", ", ", 1), Malformed},
		"control character":   {strings.Replace(text, "document", "docu\x01ment", 1), Malformed},
		"other script":        {strings.Replace(text, "ecdsa", "ecds\u0430", 1), Malformed},
		"unknown field":       {strings.Replace(text, "{", `{"x":1,`, 1), Malformed},
		"two values":          {text + "{}", Malformed},
		"too large":           {text + strings.Repeat(" ", MaxSize), Malformed},
		"nesting":             {strings.Repeat("[", 10000), Malformed},
		"no signatures":       {`{"document":"` + base64.StdEncoding.EncodeToString(doc) + `","signatures":[]}`, BadSignature},
		"signatures are null": {`{"document":"` + base64.StdEncoding.EncodeToString(doc) + `","signatures":null}`, BadSignature},
		"document is null":    {`{"document":null,"signatures":null}`, BadSignature},
		"another document":    {strings.Replace(text, base64.StdEncoding.EncodeToString(doc), base64.StdEncoding.EncodeToString(other), 1), BadSignature},
		"another algorithm":   {strings.Replace(text, "ecdsa-p256-sha256", "rsa4096-pkcs1v15-sha256", 1), BadSignature},
		"signed twice":        {signedTwice(t, b), BadSignature},
		"17 signatures":       {manySignatures(t, b, 17), BadSignature},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify([]byte(c.b), trust(1, ecKeys()[0]), machine(issued), Statement{}); CaseOf(err) != c.want {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func signedTwice(t *testing.T, b []byte) string {
	e, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	e.Signatures = append(e.Signatures, e.Signatures[0])
	b, _ = json.Marshal(e)
	return string(b)
}

func manySignatures(t *testing.T, b []byte, n int) string {
	e, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(e.Signatures); i < n; i++ {
		e.Signatures = append(e.Signatures, detached.Signature{KeyID: fmt.Sprint(i), Algorithm: "x", Signature: []byte{1}})
	}
	b, _ = json.Marshal(e)
	return string(b)
}

// FuzzVerify: foreign bytes never pass and never panic; what is opened without keys comes out as it went in.
func FuzzVerify(f *testing.F) {
	b := sign(f, good(), ecKeys()[0])
	f.Add(b)
	f.Add([]byte(`{"document":"e30=","signatures":[]}`))
	f.Add(seal(f, []byte(`{"type":"freshness","format":1}`)))
	f.Add([]byte(`{"document":null,"signatures":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Verify(data, trust(1, ecKeys()[3]), machine(issued), Statement{}); err == nil || CaseOf(err) != Malformed && CaseOf(err) != BadSignature {
			t.Fatalf("strange bytes: %v", err)
		}
		s, err := Unverified(data)
		if err != nil {
			if !fault.Is(err, fault.Input) {
				t.Fatalf("kind %v of %v", fault.KindOf(err), err)
			}
			return
		}
		e, _ := decode(data)
		if doc, err := s.Document(); err != nil || !bytes.Equal(doc, e.Document) {
			t.Fatalf("%s came back as %s (%v)", e.Document, doc, err)
		}
	})
}

// FuzzSigned gives a machine any bytes that the right key has signed.
func FuzzSigned(f *testing.F) {
	doc, err := good().Document()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte(strings.Replace(string(doc), "2026-01-16", "9999-12-31", 1)))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if len(doc) > 4<<10 {
			return
		}
		s, err := Verify(seal(t, doc), trust(1, ecKeys()[0]), machine(issued), Statement{})
		if err == nil {
			if again, err := s.Document(); err != nil || !bytes.Equal(again, doc) || s.Channel != "stable" || !s.Expires.After(issued) {
				t.Fatalf("believed %s as %+v (%v)", doc, s, err)
			}
		} else if CaseOf(err) == "" {
			t.Fatalf("no case: %v", err)
		}
	})
}
