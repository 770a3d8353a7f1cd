package lock

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// indexed is one stanza of a Packages file, as far as the lock needs it.
type indexed struct {
	Package
	depends string
}

// index is all that the suites offer, by name.
type index struct {
	packages map[string][]indexed
	provided map[string][]string // virtual package: who provides it
}

func newIndex() *index {
	return &index{packages: map[string][]indexed{}, provided: map[string][]string{}}
}

// add reads a Packages file (deb822) that apt has verified.
func (x *index) add(text string, from Archive) error {
	for len(text) > 0 {
		stanza, rest, _ := strings.Cut(text, "\n\n")
		text = strings.TrimLeft(rest, "\n")
		if strings.TrimSpace(stanza) == "" {
			continue
		}
		p := indexed{Package: Package{Archive: from}}
		var size, provides string
		for len(stanza) > 0 {
			var l string
			l, stanza, _ = strings.Cut(stanza, "\n")
			field, value, _ := strings.Cut(l, ":")
			switch value = strings.TrimSpace(value); field { // continuation lines begin with a space and match no case
			case "Package":
				p.Name = value
			case "Version":
				p.Version = value
			case "Architecture":
				p.Architecture = value
			case "Size":
				size = value
			case "SHA256":
				p.SHA256 = value
			case "Filename":
				p.Path = value
			case "Depends":
				p.depends = value
			case "Provides":
				provides = value
			}
		}
		var err error
		if p.Size, err = strconv.ParseInt(size, 10, 64); err != nil {
			return fmt.Errorf("package %q: size %q", p.Name, size)
		}
		p.Path = strings.TrimPrefix(p.Path, "./")
		x.packages[p.Name] = append(x.packages[p.Name], p)
		for v := range dependencies(provides) {
			x.provided[v] = append(x.provided[v], p.Name)
		}
	}
	return nil
}

// dependencies yields the names of a relation field, alternatives included: "a (>= 1) | b, c:any".
func dependencies(field string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for relation := range strings.SplitSeq(field, ",") {
			for alternative := range strings.SplitSeq(relation, "|") {
				name, _, _ := strings.Cut(strings.TrimSpace(alternative), " ")
				name, _, _ = strings.Cut(name, ":")
				if name != "" && !yield(name) {
					return
				}
			}
		}
	}
}

// find returns the stanza of the version that apt chose. Where both archives have it, the one that keeps it longer wins: Debian's own.
func (x *index) find(name, version, architecture string) (indexed, error) {
	var found *indexed
	for _, p := range x.packages[name] {
		if p.Version != version || p.Architecture != architecture {
			continue
		}
		if found == nil || (found.Archive == Security && p.Archive == Debian) {
			found = &p
		}
	}
	if found == nil {
		return indexed{}, fmt.Errorf("apt chose %s %s (%s), which no index has", name, version, architecture)
	}
	return *found, nil
}

// names are the names of all packages.
func (x *index) names() []string { return slices.Collect(maps.Keys(x.packages)) }

// readReleases returns the date of each suite's Release file among apt's lists.
func readReleases(lists string) ([]Release, error) {
	var releases []Release
	for _, pattern := range []string{"*_InRelease", "*_Release"} {
		files, err := filepath.Glob(filepath.Join(lists, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			r, err := parseRelease(string(data))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
			}
			releases = append(releases, r)
		}
	}
	slices.SortFunc(releases, func(a, b Release) int { return strings.Compare(a.Suite, b.Suite) })
	return releases, nil
}

func parseRelease(text string) (Release, error) {
	var r Release
	for l := range strings.Lines(text) {
		field, value, _ := strings.Cut(l, ":")
		switch value = strings.TrimSpace(value); field {
		case "Codename":
			r.Suite = value
		case "Date":
			date, err := time.Parse(time.RFC1123, value)
			if err != nil {
				return r, err
			}
			r.Date = date.UTC()
		}
	}
	if r.Suite == "" || r.Date.IsZero() {
		return r, fmt.Errorf("a Release file without Codename or Date")
	}
	return r, nil
}
