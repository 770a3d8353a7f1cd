// Package modules knows the kernel modules of an initramfs: which file, which dependencies, which devices ask for it; and loads them.
//
// The index is a text file that the builder derives from depmod's modules.dep, modules.alias and modules.softdep, cut down to the modules that the
// archive holds. One statement a line, fields separated by one space, in this order:
//
//	semper-modules 1                                          the first line: format and version
//	module ahci ahci.ko scsi_common scsi_mod libata libahci   name, file, then what it needs, in the order of loading (all of it, not only the nearest)
//	before ext4 crc32c_generic                                load these first if they can be loaded ("softdep pre")
//	after ipmi_msghandler ipmi_devintf                        and these afterwards ("softdep post")
//	alias pci:v*d*sv*sd*bc01sc06i01* ahci                     a pattern for a device's modalias
//
// Names have underscores, as in /proc/modules; files keep the names that the kernel's build gave them.
//
// Limits: 1 MiB, 1024 modules, 16384 aliases, lines of 4096 bytes. A module that needs itself, a name that is not a module, a file name with a slash, a
// statement that is not known or stands out of order: the whole index is refused.
package modules

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

const (
	header = "semper-modules 1"

	maxIndex   = 1 << 20
	maxModules = 1024
	maxAliases = 16384
	maxLine    = 4096
)

// Module is one kernel module.
type Module struct {
	Name   string   // with underscores
	File   string   // within the modules' folder
	Needs  []string // every module that must be there first, in the order of loading
	Before []string // wanted first, but not needed
	After  []string // wanted afterwards, but not needed
}

// Alias says that devices whose modalias matches Pattern want Module.
type Alias struct {
	Pattern string
	Module  string
}

// Index is what an initramfs knows about its modules.
type Index struct {
	Modules []Module
	Aliases []Alias
	byName  map[string]int
}

// Name returns a module's name as the kernel spells it: with underscores.
func Name(s string) string { return strings.ReplaceAll(s, "-", "_") }

// New checks an index and sorts it, so that the same modules always give the same text.
func New(modules []Module, aliases []Alias) (*Index, error) {
	x := &Index{Modules: slices.Clone(modules), Aliases: slices.Clone(aliases)}
	slices.SortFunc(x.Modules, func(a, b Module) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(x.Aliases, func(a, b Alias) int {
		return cmp.Or(cmp.Compare(a.Module, b.Module), cmp.Compare(a.Pattern, b.Pattern))
	})
	x.Aliases = slices.Compact(x.Aliases)
	if err := x.check(); err != nil {
		return nil, err
	}
	return x, nil
}

// Lookup returns the module with a name, which may have dashes.
func (x *Index) Lookup(name string) (Module, bool) {
	i, ok := x.byName[Name(name)]
	if !ok {
		return Module{}, false
	}
	return x.Modules[i], true
}

// Parse reads an index. Errors are of kind Input.
func Parse(b []byte) (*Index, error) {
	if len(b) > maxIndex {
		return nil, fault.New(fault.Input, "module index: %d bytes, at most %d are allowed", len(b), maxIndex)
	}
	if len(b) == 0 {
		return nil, fault.New(fault.Input, "module index: empty")
	}
	x := &Index{}
	var last string // the module that before and after must follow
	for n := 1; len(b) > 0; n++ {
		line, rest, ok := bytes.Cut(b, []byte{'\n'})
		if !ok {
			return nil, fault.New(fault.Input, "module index: line %d is cut off", n)
		}
		b = rest
		if err := x.statement(n, string(line), &last); err != nil {
			return nil, fault.New(fault.Input, "module index: line %d: %w", n, err)
		}
	}
	if err := x.check(); err != nil {
		return nil, err
	}
	return x, nil
}

func (x *Index) statement(n int, line string, last *string) error {
	if len(line) > maxLine {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(line), maxLine)
	}
	if n == 1 {
		if line != header {
			return fmt.Errorf("want %q", header)
		}
		return nil
	}
	f := strings.Split(line, " ")
	if slices.Contains(f, "") {
		return fmt.Errorf("an empty field in %q", line)
	}
	switch {
	case f[0] == "module" && len(f) >= 3 && len(x.Aliases) == 0:
		if len(x.Modules) == maxModules {
			return fmt.Errorf("more than %d modules", maxModules)
		}
		x.Modules = append(x.Modules, Module{Name: f[1], File: f[2], Needs: fields(f[3:])})
		*last = f[1]
	case f[0] == "before" && len(f) >= 3 && f[1] == *last && len(x.Aliases) == 0 && x.Modules[len(x.Modules)-1].Before == nil && x.Modules[len(x.Modules)-1].After == nil:
		x.Modules[len(x.Modules)-1].Before = f[2:]
	case f[0] == "after" && len(f) >= 3 && f[1] == *last && len(x.Aliases) == 0 && x.Modules[len(x.Modules)-1].After == nil:
		x.Modules[len(x.Modules)-1].After = f[2:]
	case f[0] == "alias" && len(f) == 3:
		if len(x.Aliases) == maxAliases {
			return fmt.Errorf("more than %d aliases", maxAliases)
		}
		x.Aliases = append(x.Aliases, Alias{Pattern: f[1], Module: f[2]})
	default:
		return fmt.Errorf("%q is not a statement that may stand here", line)
	}
	return nil
}

// fields keeps "none" nil, so that a parsed index equals the one that was written.
func fields(f []string) []string {
	if len(f) == 0 {
		return nil
	}
	return f
}

// Bytes returns the text of the index.
func (x *Index) Bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, header)
	for _, m := range x.Modules {
		fmt.Fprintln(&b, strings.Join(append([]string{"module", m.Name, m.File}, m.Needs...), " "))
		if len(m.Before) > 0 {
			fmt.Fprintln(&b, "before", m.Name, strings.Join(m.Before, " "))
		}
		if len(m.After) > 0 {
			fmt.Fprintln(&b, "after", m.Name, strings.Join(m.After, " "))
		}
	}
	for _, a := range x.Aliases {
		fmt.Fprintln(&b, "alias", a.Pattern, a.Module)
	}
	return b.Bytes()
}

// check makes the table of names and refuses what the loader could not follow: it needs every order to be whole and acyclic.
func (x *Index) check() error {
	x.byName = make(map[string]int, len(x.Modules))
	for i, m := range x.Modules {
		switch {
		case !validName(m.Name) || m.Name != Name(m.Name):
			return fault.New(fault.Input, "module index: %q is not a module's name", m.Name)
		case !validName(m.File) || m.File[0] == '.':
			return fault.New(fault.Input, "module index: %q is not a file's name", m.File)
		}
		if _, ok := x.byName[m.Name]; ok {
			return fault.New(fault.Input, "module index: module %s twice", m.Name)
		}
		x.byName[m.Name] = i
	}
	for _, m := range x.Modules {
		seen := map[string]bool{m.Name: true}
		for _, n := range m.Needs {
			i, ok := x.byName[n]
			if !ok || seen[n] {
				return fault.New(fault.Input, "module index: %s cannot need %s", m.Name, n)
			}
			// Every need of a need must stand before it; that also rules out circles.
			for _, deeper := range x.Modules[i].Needs {
				if !seen[deeper] || deeper == m.Name {
					return fault.New(fault.Input, "module index: %s needs %s, which needs %s first", m.Name, n, deeper)
				}
			}
			seen[n] = true
		}
		for _, n := range slices.Concat(m.Before, m.After) {
			if _, ok := x.byName[n]; !ok || n == m.Name {
				return fault.New(fault.Input, "module index: %s cannot want %s", m.Name, n)
			}
		}
	}
	for _, a := range x.Aliases {
		if _, ok := x.byName[a.Module]; !ok {
			return fault.New(fault.Input, "module index: alias of %s, which is no module here", a.Module)
		}
		if strings.ContainsAny(a.Pattern, " \n") || a.Pattern == "" {
			return fault.New(fault.Input, "module index: %q is not a pattern", a.Pattern)
		}
	}
	return nil
}

func validName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
	}) < 0
}
