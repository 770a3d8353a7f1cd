package omaha

import (
	"encoding/xml"
	"strings"
	"unicode/utf8"
)

// scan reads the plain documents that clients send, about eight times as fast as encoding/xml: elements with attributes in quotes, the five entities of XML, quotes by their numbers, white space
// between elements, an XML declaration in UTF-8. Of everything else, well-formed or not, it says that it does not know it, and the parser decides. What it does read it reads
// as the parser would: FuzzScan compares the two.
func scan(data []byte) (root *element, ok bool) {
	s := scanner{data: data, attrs: make([]xml.Attr, 0, usualAttributes)}
	if len(data) > 0 && data[0] == '<' {
		s.declaration()
	}
	var open []*element
	for count := 0; ; {
		s.space()
		if s.at == len(data) {
			return root, root != nil && len(open) == 0
		}
		if !s.take('<') {
			return nil, false
		}
		if s.take('/') {
			if len(open) == 0 || s.name() != open[len(open)-1].name {
				return nil, false
			}
			s.space()
			if !s.take('>') {
				return nil, false
			}
			open = open[:len(open)-1]
			continue
		}
		el := &element{name: s.name()}
		if count++; el.name == "" || count > MaxElements || len(open) == MaxDepth || root != nil && len(open) == 0 {
			return nil, false
		}
		empty, ok := s.attributes(el)
		if !ok {
			return nil, false
		}
		if len(open) == 0 {
			root = el
		} else {
			parent := open[len(open)-1]
			parent.children = append(parent.children, el)
		}
		if !empty {
			open = append(open, el)
		}
	}
}

// usualAttributes is how many a document has, or a few more.
const usualAttributes = 32

type scanner struct {
	data  []byte
	at    int
	attrs []xml.Attr // of all elements, which have parts of it
}

func (s *scanner) take(c byte) bool {
	if s.at < len(s.data) && s.data[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *scanner) space() (some bool) {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
			some = true
		default:
			return some
		}
	}
	return some
}

// declaration skips an XML declaration in the form that most writers give it; any other is left for the parser.
func (s *scanner) declaration() {
	for _, d := range []string{`<?xml version="1.0" encoding="UTF-8"?>`, `<?xml version="1.0" encoding="utf-8"?>`, `<?xml version="1.0"?>`} {
		if len(s.data) >= len(d) && string(s.data[:len(d)]) == d {
			s.at = len(d)
			return
		}
	}
}

// name reads a name of ASCII letters, digits, '_' and '-', which no name space changes; empty: it is another one.
func (s *scanner) name() string {
	start := s.at
	for s.at < len(s.data) {
		c := s.data[s.at]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (s.at == start || c != '-' && (c < '0' || c > '9')) {
			break
		}
		s.at++
	}
	name := s.data[start:s.at]
	if known, ok := knownNames[string(name)]; ok {
		return known
	}
	return string(name)
}

// knownNames are the names that clients send: they need not be made for each request.
var knownNames = func() map[string]string {
	names := map[string]string{}
	for name := range strings.FieldsSeq(`request os app ping updatecheck event protocol version updaterversion installsource ismachine userid sessionid requestid platform sp arch
		appid track from_track bootid oem oemversion alephversion machineid machinealias lang board hardware_class delta_okay nextversion brand client active
		eventtype eventresult errorcode previousversion reason`) {
		names[name] = name
	}
	return names
}()

// attributes reads an element's attributes to the end of its tag.
func (s *scanner) attributes(el *element) (empty, ok bool) {
	first := len(s.attrs)
	defer func() { el.attrs = s.attrs[first:len(s.attrs):len(s.attrs)] }()
	for {
		apart := s.space()
		if s.take('>') {
			return false, true
		}
		if s.take('/') {
			return true, s.take('>')
		}
		name := s.name()
		if name == "" || !apart || name == "xmlns" || len(s.attrs)-first == MaxAttributes {
			return false, false
		}
		for i := range s.attrs[first:] {
			if s.attrs[first+i].Name.Local == name {
				return false, false
			}
		}
		s.space()
		if !s.take('=') {
			return false, false
		}
		s.space()
		value, ok := s.value()
		if !ok {
			return false, false
		}
		s.attrs = append(s.attrs, xml.Attr{Name: xml.Name{Local: name}, Value: value})
	}
}

// value reads an attribute's value in quotes.
func (s *scanner) value() (string, bool) {
	if s.at == len(s.data) || s.data[s.at] != '"' && s.data[s.at] != '\'' {
		return "", false
	}
	quote := s.data[s.at]
	s.at++
	start, entities := s.at, false
	for s.at < len(s.data) && s.data[s.at] != quote {
		switch c := s.data[s.at]; {
		case c == '&':
			entities = true
		case c == '<', c < ' ', c == 0x7f: // also what the parser would change: carriage returns
			return "", false
		}
		s.at++
	}
	raw := s.data[start:s.at]
	if !s.take(quote) {
		return "", false
	}
	for _, c := range raw {
		if c >= utf8.RuneSelf {
			return plainRunes(raw, entities)
		}
	}
	return unescape(string(raw), entities)
}

// plainRunes is the value of bytes that are not all ASCII, which must be characters that XML has.
func plainRunes(raw []byte, entities bool) (string, bool) {
	for b := raw; len(b) > 0; {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError || r == 0xfffe || r == 0xffff {
			return "", false
		}
		b = b[n:]
	}
	return unescape(string(raw), entities)
}

var entities = strings.NewReplacer("&amp;", "&", "&lt;", "<", "&gt;", ">", "&quot;", `"`, "&apos;", "'", "&#34;", `"`, "&#39;", "'")

func unescape(s string, some bool) (string, bool) {
	if !some {
		return s, true
	}
	for rest := s; ; {
		i := strings.IndexByte(rest, '&')
		if i < 0 {
			return entities.Replace(s), true
		}
		rest = rest[i:]
		known := false
		for _, e := range []string{"&amp;", "&lt;", "&gt;", "&quot;", "&apos;", "&#34;", "&#39;"} {
			known = known || strings.HasPrefix(rest, e)
		}
		if !known {
			return "", false
		}
		rest = rest[1:]
	}
}
