package recipe

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// findLines returns the line of every key, table and array element of a TOML document, so that a check that fails long after
// parsing can still say where. Keys look like "packages[3]", "kernel.package" and "users[0].uid".
func findLines(data []byte) (map[string]int, error) {
	w := lineWalker{lines: map[string]int{}, tables: map[string]int{}}
	w.parser.Reset(data)
	for w.parser.NextExpression() {
		node := w.parser.Expression()
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			name, line := w.key(node.Key())
			if node.Kind == unstable.ArrayTable {
				n := w.tables[name]
				w.tables[name]++
				name = fmt.Sprintf("%s[%d]", name, n)
			}
			w.lines[name] = line
			w.prefix = name + "."
		case unstable.KeyValue:
			w.keyValue(w.prefix, node)
		}
	}
	return w.lines, w.parser.Error()
}

type lineWalker struct {
	parser unstable.Parser
	lines  map[string]int
	tables map[string]int // how often an array table was opened
	prefix string
}

func (w *lineWalker) key(it unstable.Iterator) (name string, line int) {
	var parts []string
	for it.Next() {
		n := it.Node()
		if line == 0 {
			line = w.parser.Shape(n.Raw).Start.Line
		}
		parts = append(parts, string(n.Data))
	}
	return strings.Join(parts, "."), line
}

func (w *lineWalker) keyValue(prefix string, node *unstable.Node) {
	name, line := w.key(node.Key())
	w.lines[prefix+name] = line
	w.value(prefix+name, node.Value(), line)
}

func (w *lineWalker) value(name string, node *unstable.Node, line int) {
	switch node.Kind {
	case unstable.Array:
		it := node.Children()
		for i := 0; it.Next(); i++ {
			n := it.Node()
			element := fmt.Sprintf("%s[%d]", name, i)
			if n.Kind == unstable.String {
				line = w.parser.Shape(n.Raw).Start.Line
			}
			w.lines[element] = line
			w.value(element, n, line)
		}
	case unstable.InlineTable:
		it := node.Children()
		for it.Next() {
			w.keyValue(name+".", it.Node())
		}
	}
}
