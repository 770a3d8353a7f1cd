package omaha

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/semper-os/semper/fault"
)

// element is one element of a foreign document, with its bounds checked and its text dropped: Omaha keeps everything in attributes.
type element struct {
	name     string
	attrs    []xml.Attr
	children []*element
}

// parse reads a whole document. It refuses what XML allows and Omaha never needs.
func parse(data []byte, max int) (*element, error) {
	if len(data) > max {
		return nil, fault.New(fault.Input, "the document has more than %d bytes", max)
	}
	dec := xml.NewDecoder(bytes.NewReader(data))
	dec.Entity = nil
	var root *element
	var open []*element
	count, first := 0, true
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fault.New(fault.Input, "line %d: %w", line(dec), err)
		}
		fail := func(why string) (*element, error) {
			return nil, fault.New(fault.Input, "line %d: %s", line(dec), why)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if count++; count > MaxElements {
				return fail("more than " + strconv.Itoa(MaxElements) + " elements")
			}
			if len(open) == MaxDepth {
				return fail("elements are nested more than " + strconv.Itoa(MaxDepth) + " deep")
			}
			if len(t.Attr) > MaxAttributes {
				return fail("more than " + strconv.Itoa(MaxAttributes) + " attributes")
			}
			el := &element{name: t.Name.Local, attrs: t.Attr}
			if t.Name.Space != "" {
				el.name = "" // another vocabulary's: skipped like every unknown element
			}
			if twice := repeated(t.Attr); twice != "" {
				return fail("attribute " + twice + " is given twice")
			}
			switch {
			case len(open) > 0:
				parent := open[len(open)-1]
				parent.children = append(parent.children, el)
			case root != nil:
				return fail("a second root element")
			default:
				root = el
			}
			open = append(open, el)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) == 0 && len(bytes.TrimSpace(t)) > 0 {
				return fail("text outside the root element")
			}
		case xml.Directive:
			return fail("a document type declaration is not accepted")
		case xml.ProcInst:
			if !first || t.Target != "xml" {
				return fail("a processing instruction is not accepted")
			}
		}
		first = false
	}
	if root == nil {
		return nil, fault.New(fault.Input, "the document is empty")
	}
	return root, nil
}

func line(dec *xml.Decoder) int {
	n, _ := dec.InputPos()
	return n
}

func repeated(attrs []xml.Attr) string {
	for i, a := range attrs {
		for _, b := range attrs[:i] {
			if a.Name == b.Name {
				return clip(a.Name.Local, 64)
			}
		}
	}
	return ""
}

// all returns el's children of one name, an error when there are more than max.
func (el *element) all(name string, max int) ([]*element, error) {
	var found []*element
	for _, c := range el.children {
		if c.name != name {
			continue
		}
		if found = append(found, c); len(found) > max {
			return nil, fault.New(fault.Input, "<%s> has more than %d <%s>", el.name, max, name)
		}
	}
	return found, nil
}

// one returns el's only child of a name, nil when there is none.
func (el *element) one(name string) (*element, error) {
	found, err := el.all(name, 1)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// attributes reads the attributes of one element; the first error sticks and the caller looks at it once.
type attributes struct {
	el  *element
	err error
}

func (a *attributes) fail(name, why string) {
	if a.err == nil {
		a.err = fault.New(fault.Input, "<%s %s>: %s", a.el.name, name, why)
	}
}

func (a *attributes) lookup(name string) (string, bool) {
	for _, at := range a.el.attrs {
		if at.Name.Local == name && at.Name.Space == "" {
			return at.Value, true
		}
	}
	return "", false
}

// text returns an attribute of at most max bytes, "" when it is missing. White space characters become spaces, as XML wants it; other
// characters that cannot be printed are refused, so that no name can steer a terminal or break a log line.
func (a *attributes) text(name string, max int) string {
	v, _ := a.lookup(name)
	if len(v) > max {
		a.fail(name, "longer than "+strconv.Itoa(max)+" bytes")
		return ""
	}
	if plain(v) {
		return v
	}
	v = strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, v)
	if i := strings.IndexFunc(v, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		r, _ := utf8.DecodeRuneInString(v[i:])
		a.fail(name, "holds "+strconv.QuoteRuneToASCII(r)+", which cannot be printed")
		return ""
	}
	return v
}

// plain reports whether v is printable ASCII, as it nearly always is.
func plain(v string) bool {
	for i := range len(v) {
		if v[i] < ' ' || v[i] > '~' {
			return false
		}
	}
	return true
}

func (a *attributes) short(name string) string { return a.text(name, MaxAttribute) }

// whole returns a number between lo and hi, 0 when the attribute is missing and need not be there.
func (a *attributes) whole(name string, lo, hi int64, required bool) int64 {
	v, ok := a.lookup(name)
	if !ok {
		if required {
			a.fail(name, "missing")
		}
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 64)
	switch {
	case err != nil:
		a.fail(name, strconv.QuoteToASCII(clip(v, 32))+" is not a whole number of 64 bits")
		return 0
	case n < lo || n > hi:
		a.fail(name, v+" is not between "+strconv.FormatInt(lo, 10)+" and "+strconv.FormatInt(hi, 10))
		return 0
	}
	return n
}

func (a *attributes) flag(name string) bool {
	v, _ := a.lookup(name)
	switch v {
	case "true", "1":
		return true
	case "false", "0", "":
		return false
	}
	a.fail(name, strconv.QuoteToASCII(clip(v, 32))+" is neither true nor false")
	return false
}

func (a *attributes) protocol() {
	if v, _ := a.lookup("protocol"); v != Protocol {
		a.fail("protocol", strconv.QuoteToASCII(clip(v, 32))+" is not the version spoken here, "+Protocol)
	}
}
