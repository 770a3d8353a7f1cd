package config

import (
	"fmt"
	"io"
	"strconv"
)

// Origin is where a value was set.
type Origin struct {
	File string
	Line int
}

// String is the usual FILE:LINE.
func (o Origin) String() string { return o.File + ":" + strconv.Itoa(o.Line) }

// Value is one setting as people see it.
type Value struct {
	Key   string `json:"key"`
	Value any    `json:"value"` // a string, bool, int or []string; durations and sizes are strings, users and passwords in URLs are hidden
	From  string `json:"from"`  // FILE:LINE, or "default"
}

// Values are all settings, each with its origin, always in the same order.
func (s *Settings) Values() []Value {
	values := make([]Value, len(keys))
	for i, k := range keys {
		from := "default"
		if o, ok := s.Origin[k.name]; ok {
			from = o.String()
		}
		values[i] = Value{Key: k.name, Value: k.get(s), From: from}
	}
	return values
}

// Show prints all settings, one a line, as TOML with the origins as comments. Without a hidden password it is a drop-in that gives the same settings.
func (s *Settings) Show(w io.Writer) error {
	for _, v := range s.Values() {
		line, err := assignment(v.Key, v.Value)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%-44s # %s\n", line, v.From); err != nil {
			return err
		}
	}
	for _, i := range s.Ignored {
		if _, err := fmt.Fprintf(w, "# ignored: %s\n", i); err != nil {
			return err
		}
	}
	return nil
}

// Changed names the keys whose values differ between a and b, wherever they were set.
func Changed(a, b Settings) []string {
	var changed []string
	for _, k := range keys {
		if !k.same(&a, &b) {
			changed = append(changed, k.name)
		}
	}
	return changed
}
