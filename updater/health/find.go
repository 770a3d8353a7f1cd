package health

import (
	"sort"
	"strings"

	"github.com/semper-os/semper/updater/hook"
)

const tomlSuffix = ".toml"

var set = hook.Set{What: "health checks", Folders: Folders, Max: maxChecks}

// named is what the folders say about one name.
type named struct {
	program *hook.File // NAME
	options *file      // NAME.toml
	// broken is the message of a NAME.toml that is not understood.
	broken error
	path   string // of NAME.toml
}

// Find lists the checks below root ("/" on a machine) in the order in which they run. A file that is not understood is a check too, one that fails.
func Find(root string) ([]Check, error) {
	layers, err := set.Layers(root)
	if err != nil {
		return nil, err
	}
	found := map[string]*named{}
	for _, layer := range layers {
		for name, upper := range pair(layer) {
			lower := found[name]
			if upper.off {
				lower = nil
			}
			if n := lay(lower, upper); n != nil {
				found[name] = n
			} else {
				delete(found, name)
			}
		}
	}
	if err := set.Count(len(found)); err != nil {
		return nil, err
	}
	checks := make([]Check, 0, len(found))
	for name, n := range found {
		checks = append(checks, n.check(name))
	}
	sort.Slice(checks, func(i, j int) bool { return checks[i].Name < checks[j].Name })
	return checks, nil
}

// pairing is one folder's word on a name.
type pairing struct {
	named
	off        bool // NAME is a link to /dev/null
	optionsOff bool // NAME.toml is
}

func pair(layer []hook.File) map[string]*pairing {
	all := map[string]*pairing{}
	for _, f := range layer {
		name, isTOML := strings.CutSuffix(f.Name, tomlSuffix)
		p := all[name]
		if p == nil {
			p = &pairing{}
			all[name] = p
		}
		switch {
		case isTOML && f.Off:
			p.optionsOff = true
		case isTOML:
			p.path = f.Path
			p.options, p.broken = readFile(f.Path)
		case f.Off:
			p.off = true
		default:
			p.program = &f
		}
	}
	return all
}

// lay puts a folder's files over what the folders below say. The result is nil where nothing is left.
func lay(lower *named, upper *pairing) *named {
	n := named{}
	if lower != nil {
		n = *lower
	}
	if upper.optionsOff {
		n.options, n.broken, n.path = nil, nil, ""
	}
	if upper.program != nil {
		n.program = upper.program
		if n.broken != nil || n.options.defines() { // said what to do instead of it
			n.options, n.broken, n.path = nil, nil, ""
		}
	}
	switch {
	case upper.path == "":
	case upper.broken != nil || upper.options.defines():
		n.options, n.broken, n.path = upper.options, upper.broken, upper.path
		if upper.program == nil {
			n.program = nil
		}
	case n.broken == nil: // options, over those there are
		n.options, n.broken = upper.options.over(n.options, upper.path)
		n.path = upper.path
	}
	if n.program == nil && n.path == "" {
		return nil
	}
	return &n
}

func (n *named) check(name string) Check {
	broken := func(err error) Check {
		return Check{Name: name, Path: n.path, Kind: Broken, Required: true, Err: err}
	}
	switch {
	case n.broken != nil:
		return broken(n.broken)
	case n.path == "":
		return Check{Name: name, Path: n.program.Path, Kind: Exec, Argv: []string{n.program.Path}, Required: true, Retry: defaultRetry}
	case n.program != nil && n.options.defines():
		return broken(inputf("%s: it says what to check, and so does %s; keep one of them", n.path, n.program.Path))
	case n.program == nil && !n.options.defines():
		return broken(inputf("%s: nothing says what to check: want one of unit, exec and builtin, or an executable %s", n.path, name))
	}
	c := n.options.check
	c.Name, c.Path = name, n.path
	if n.program != nil {
		c.Kind, c.Path, c.Argv = Exec, n.program.Path, []string{n.program.Path}
	}
	return c
}
