package recipe

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/spelling"
)

// file is the shape of recipe.toml. Sizes are strings here: the checks turn them into numbers, and know the line to blame.
type file struct {
	Name           string   `toml:"name"`
	Title          string   `toml:"title"`
	Suite          string   `toml:"suite"`
	Architecture   string   `toml:"architecture"`
	Components     []string `toml:"components"`
	Epoch          int      `toml:"epoch"`
	MinVersion     string   `toml:"min-version"`
	Packages       []string `toml:"packages"`
	RemovePackages []string `toml:"remove-packages"`
	RemovePaths    []string `toml:"remove-paths"`
	KeepPaths      []string `toml:"keep-paths"`
	Kernel         struct {
		Package        string   `toml:"package"`
		Modules        string   `toml:"modules"`
		ExcludeModules []string `toml:"exclude-modules"`
		CommandLine    string   `toml:"command-line"`
	} `toml:"kernel"`
	Root struct {
		SlotSize    string `toml:"slot-size"`
		Compression string `toml:"compression"`
	} `toml:"root"`
	ESP struct {
		Size string `toml:"size"`
	} `toml:"esp"`
	Tools struct {
		Packages []string `toml:"packages"`
	} `toml:"tools"`
	Users []struct {
		Name   string   `toml:"name"`
		UID    int      `toml:"uid"`
		GID    int      `toml:"gid"`
		Home   string   `toml:"home"`
		Shell  string   `toml:"shell"`
		Groups []string `toml:"groups"`
		System bool     `toml:"system"`
	} `toml:"users"`
	Health []struct {
		Name    string   `toml:"name"`
		Command []string `toml:"command"`
	} `toml:"health"`
}

// keys are all keys of file, to find the nearest to an unknown one.
var keys = []string{
	"name", "title", "suite", "architecture", "components", "epoch", "min-version", "packages", "remove-packages", "remove-paths", "keep-paths",
	"kernel", "kernel.package", "kernel.modules", "kernel.exclude-modules", "kernel.command-line",
	"root", "root.slot-size", "root.compression", "esp", "esp.size", "tools", "tools.packages",
	"users", "users.name", "users.uid", "users.gid", "users.home", "users.shell", "users.groups", "users.system",
	"health", "health.name", "health.command",
}

// Parse reads and checks a recipe; path is for messages. Errors are of kind Input.
func Parse(path string, data []byte) (*Recipe, error) {
	if len(data) > maxBytes {
		return nil, fault.New(fault.Input, "%s: larger than %d bytes: not a recipe", path, maxBytes)
	}
	var f file
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, explain(path, err)
	}
	lines, err := findLines(data)
	if err != nil {
		return nil, fault.New(fault.Input, "%s: %w", path, err)
	}
	c := checker{r: &Recipe{Path: path, lines: lines}, f: &f}
	if err := c.check(); err != nil {
		return nil, fault.Wrap(fault.Input, err)
	}
	return c.r, nil
}

// wrongType is the library's message for a value that does not fit its field, which names our types instead of TOML's.
var wrongType = regexp.MustCompile(`^cannot decode TOML ([a-z]+) into .* of type (string|int|bool|\[\]string)$`)

var typeNames = map[string]string{"string": "a string in quotes", "int": "a whole number", "bool": "true or false", "[]string": "a list of strings"}

// explain turns the TOML library's error into one line with the file, the line and the nearest key.
func explain(path string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := &strict.Errors[0]
		line, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		if near := spelling.Nearest(key, keys, 1); len(near) > 0 {
			return fault.New(fault.Input, "%s:%d: unknown key %q, did you mean %q?", path, line, key, near[0])
		}
		return fault.New(fault.Input, "%s:%d: unknown key %q", path, line, key)
	}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		line, _ := de.Position()
		message := strings.TrimPrefix(de.Error(), "toml: ")
		if m := wrongType.FindStringSubmatch(message); m != nil {
			message = fmt.Sprintf("it must be %s, not %s", typeNames[m[2]], m[1])
		}
		if key := strings.Join(de.Key(), "."); key != "" {
			message = key + ": " + message
		}
		return fault.New(fault.Input, "%s:%d: %s", path, line, message)
	}
	return fault.New(fault.Input, "%s: %w", path, err)
}
