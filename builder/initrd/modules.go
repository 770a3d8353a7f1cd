package initrd

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/semper-os/semper/builder/kernel"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/initramfs/modules"
)

// database is what depmod wrote, as far as it matters here.
type database struct {
	dir     string
	files   map[string]string   // module to file below dir
	needs   map[string][]string // module to modules, in the order of loading
	builtin map[string]bool     // compiled into the kernel
	aliases [][2]string         // pattern, module
	soft    map[string]soft
}

type soft struct{ pre, post []string } // names or aliases

const compressed = ".xz"

// moduleOf returns the module's name of a file: "kernel/drivers/md/dm-mod.ko.xz" is dm_mod.
func moduleOf(file string) string {
	return modules.Name(strings.TrimSuffix(strings.TrimSuffix(path.Base(file), compressed), ".ko"))
}

func readDatabase(dir string) (*database, error) {
	db := &database{dir: dir, files: map[string]string{}, needs: map[string][]string{}, builtin: map[string]bool{}, soft: map[string]soft{}}
	err := eachLine(filepath.Join(dir, "modules.dep"), func(line string) error {
		file, rest, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("no colon in %q", line)
		}
		m := moduleOf(file)
		db.files[m] = file
		for _, f := range strings.Fields(rest) {
			db.needs[m] = append(db.needs[m], moduleOf(f))
		}
		slices.Reverse(db.needs[m]) // modules.dep has the nearest first
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = eachLine(filepath.Join(dir, "modules.builtin"), func(line string) error {
		db.builtin[moduleOf(line)] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = eachLine(filepath.Join(dir, "modules.alias"), func(line string) error {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "alias" {
			return fmt.Errorf("%q is not an alias", line)
		}
		db.aliases = append(db.aliases, [2]string{f[1], modules.Name(f[2])})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return db, eachLine(filepath.Join(dir, "modules.softdep"), func(line string) error {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "softdep" {
			return fmt.Errorf("%q is not a soft dependency", line)
		}
		m := modules.Name(f[1])
		s := db.soft[m]
		var list *[]string
		for _, word := range f[2:] {
			switch word {
			case "pre:":
				list = &s.pre
			case "post:":
				list = &s.post
			default:
				if list != nil { // words before any "pre:" mean nothing to modprobe either
					*list = append(*list, word)
				}
			}
		}
		db.soft[m] = s
		return nil
	})
}

func eachLine(name string, f func(line string) error) error {
	file, err := os.Open(name)
	if err != nil {
		return fault.New(fault.Input, "module tree: %w", err)
	}
	defer file.Close()
	s := bufio.NewScanner(file)
	s.Buffer(nil, 1<<20)
	for n := 1; s.Scan(); n++ {
		if line := s.Text(); line != "" && line[0] != '#' {
			if err := f(line); err != nil {
				return fault.New(fault.Input, "%s: line %d: %w", name, n, err)
			}
		}
	}
	if err := s.Err(); err != nil {
		return fault.New(fault.IO, "%s: %w", name, err)
	}
	return nil
}

// closure returns the names with all that they need, sorted. One that is built into the kernel needs no file; one that is nowhere is an error.
func (db *database) closure(names []string) ([]string, error) {
	set := map[string]bool{}
	var missing []string
	for _, n := range names {
		switch {
		case db.files[n] != "":
			set[n] = true
			for _, d := range db.needs[n] {
				set[d] = true
				if db.files[d] == "" {
					missing = append(missing, d)
				}
			}
		case !db.builtin[n]:
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		return nil, fault.New(fault.Input,
			"the initramfs needs kernel modules that are not there: %s (does the recipe's exclude-modules name them, or something that they need?)",
			strings.Join(missing, ", "))
	}
	var all []string
	for n := range set {
		all = append(all, n)
	}
	slices.Sort(all)
	return all, nil
}

// index makes the index of a closed set of modules.
func (db *database) index(set []string) (*modules.Index, error) {
	in := func(n string) bool {
		_, ok := slices.BinarySearch(set, n)
		return ok
	}
	// resolve turns what a soft dependency names, a module or an alias, into modules of the set.
	resolve := func(self string, words []string) []string {
		var out []string
		for _, w := range words {
			if n := modules.Name(w); in(n) {
				out = append(out, n)
				continue
			}
			for _, a := range db.aliases {
				if in(a[1]) && modules.Match(modules.Name(a[0]), modules.Name(w)) {
					out = append(out, a[1])
				}
			}
		}
		slices.Sort(out)
		out = slices.Compact(out)
		return slices.DeleteFunc(out, func(n string) bool { return n == self })
	}
	var list []modules.Module
	for _, n := range set {
		list = append(list, modules.Module{
			Name: n, File: strings.TrimSuffix(path.Base(db.files[n]), compressed), Needs: db.needs[n],
			Before: resolve(n, slices.Concat(first[n], db.soft[n].pre)), After: resolve(n, db.soft[n].post),
		})
	}
	var aliases []modules.Alias
	for _, a := range db.aliases {
		// A device's modalias begins with its bus; what else is in the file (fs-ext4, crypto-sha256, block-major-8-*) is for the kernel's own requests,
		// which nobody answers in the initramfs.
		if in(a[1]) && strings.Contains(a[0], ":") {
			aliases = append(aliases, modules.Alias{Pattern: a[0], Module: a[1]})
		}
	}
	return modules.New(list, aliases)
}

// read returns a module's bytes, decompressed and otherwise as Debian signed them.
func (db *database) read(name string) ([]byte, error) {
	return kernel.ReadModule(filepath.Join(db.dir, filepath.FromSlash(db.files[name])))
}
