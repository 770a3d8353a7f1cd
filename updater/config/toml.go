package config

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/semper-os/semper/fault"
)

// setting is one key of a file as it is written there.
type setting struct {
	name  string
	line  int
	value any
}

// apply lays one file's keys over s; path is for messages and Origin.
func (s *Settings) apply(path string, data []byte) error {
	settings, err := parse(path, data)
	if err != nil {
		return err
	}
	for _, x := range settings {
		if err := lookup(x.name).set(s, x.value); err != nil {
			return fault.New(fault.Input, "%s:%d: %s: %w", path, x.line, x.name, err)
		}
		s.Origin[x.name] = Origin{File: path, Line: x.line}
	}
	return nil
}

// parse returns a file's keys in their order there. Values are as the TOML library decodes them and not checked yet; every name is a key's.
func parse(path string, data []byte) ([]setting, error) {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil { // finds what is no TOML, and keys that are there twice
		return nil, explain(path, err)
	}
	w := walk{path: path, data: data, tree: tree}
	var p unstable.Parser
	p.Reset(data)
	var table []string
	for p.NextExpression() {
		switch e := p.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			if table = w.key(nil, e); w.err == nil {
				w.header(table, e.Kind == unstable.ArrayTable)
			}
		case unstable.KeyValue:
			w.keyValue(table, e)
		}
		if w.err != nil {
			return nil, w.err
		}
	}
	if err := p.Error(); err != nil {
		return nil, fault.New(fault.Input, "%s: %w", path, err)
	}
	return w.found, nil
}

// walk collects keys with their lines, which the decoded tree does not have.
type walk struct {
	path   string
	data   []byte
	tree   map[string]any
	offset int // of what line stands for
	lines  int // before offset
	found  []setting
	err    error
}

// key returns the parts of a node's key below prefix, and moves to its line.
func (w *walk) key(prefix []string, n *unstable.Node) []string {
	parts := append([]string(nil), prefix...)
	for it := n.Key(); it.Next(); {
		if start := int(it.Node().Raw.Offset); start > w.offset {
			w.lines += bytes.Count(w.data[w.offset:start], []byte("\n"))
			w.offset = start
		}
		parts = append(parts, string(it.Node().Data))
	}
	return parts
}

func (w *walk) fail(format string, args ...any) {
	w.err = fault.New(fault.Input, "%s:%d: %s", w.path, w.lines+1, fmt.Sprintf(format, args...))
}

// header checks the name of a table.
func (w *walk) header(parts []string, isArray bool) {
	name := join(parts)
	switch {
	case lookup(name) != nil:
		w.fail("%q is a key and not a table: write %s = …", name, name)
	case !isTable(name):
		w.unknown("table", name, tables())
	case isArray:
		w.fail("table %q is there once: write [%s] with single brackets", name, name)
	}
}

func (w *walk) keyValue(table []string, n *unstable.Node) {
	parts := w.key(table, n)
	name := join(parts)
	switch {
	case lookup(name) != nil:
		w.found = append(w.found, setting{name: name, line: w.lines + 1, value: dig(w.tree, parts)})
	case !isTable(name):
		w.unknown("key", name, append(names(), tables()...))
	case n.Value().Kind != unstable.InlineTable:
		w.fail("%q is a table and not a key: write [%s] and its keys below it", name, name)
	default:
		for it := n.Value().Children(); it.Next() && w.err == nil; {
			w.keyValue(parts, it.Node())
		}
	}
}

// unknown tells the nearest name, or else all that could stand in the same table.
func (w *walk) unknown(what, name string, candidates []string) {
	if near := nearest(name, candidates); near != "" {
		w.fail("unknown %s %q, did you mean %q?", what, clip(name), near)
		return
	}
	table, _ := split(name)
	if !isTable(table) {
		table = ""
	}
	var here []string
	for _, c := range append(names(), tables()...) {
		if t, _ := split(c); t == table {
			here = append(here, c)
		}
	}
	w.fail("unknown %s %q (here can be %s)", what, clip(name), strings.Join(here, ", "))
}

func names() []string {
	all := make([]string, len(keys))
	for i := range keys {
		all[i] = keys[i].name
	}
	return all
}

// join writes a dotted key. Parts that are no bare keys are quoted, so that "a.b" is not taken for a.b.
func join(parts []string) string {
	out := make([]string, len(parts))
	for i, p := range parts {
		if out[i] = p; p == "" || onlyOf("", p, "-_") != nil {
			out[i] = strconv.Quote(p)
		}
	}
	return strings.Join(out, ".")
}

// dig returns the value at a path of the decoded tree.
func dig(tree map[string]any, parts []string) any {
	for _, p := range parts[:len(parts)-1] {
		tree, _ = tree[p].(map[string]any)
	}
	return tree[parts[len(parts)-1]]
}

// explain turns the TOML library's error into one line with the file and the line.
func explain(path string, err error) error {
	var de *toml.DecodeError
	if !errors.As(err, &de) {
		return fault.New(fault.Input, "%s: %w", path, err)
	}
	line, _ := de.Position()
	return fault.New(fault.Input, "%s:%d: %s", path, line, strings.TrimPrefix(de.Error(), "toml: "))
}

// assignment is a key and its value as a line of TOML; v is what a key's get returns, or what the TOML library decodes.
func assignment(name string, v any) (string, error) {
	text, err := literal(v)
	return name + " = " + text, err
}

func literal(v any) (string, error) {
	switch x := v.(type) {
	case string:
		return quote(x), nil
	case bool, int, int64:
		return fmt.Sprint(x), nil
	case []string:
		quoted := make([]string, len(x))
		for i := range x {
			quoted[i] = quote(x[i])
		}
		return "[" + strings.Join(quoted, ", ") + "]", nil
	case []any:
		texts := make([]string, len(x))
		for i := range x {
			t, err := literal(x[i])
			if err != nil {
				return "", err
			}
			texts[i] = t
		}
		return "[" + strings.Join(texts, ", ") + "]", nil
	default:
		return "", wrongType("a string, a number, true, false or an array", v)
	}
}

// quote writes a basic string of TOML.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
