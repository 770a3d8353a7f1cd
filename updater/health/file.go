package health

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/spelling"
)

const (
	maxFileBytes = 64 << 10
	maxWords     = 64
	maxWordBytes = 4 << 10

	maxTimeout = 10 * time.Minute
	maxGrace   = 15 * time.Minute
	maxRetry   = 5 * time.Minute
)

// keys are the keys of a check's file, for messages.
var keys = []string{"unit", "state", "exec", "builtin", "required", "timeout", "grace", "retry"}

// wants say what belongs to a key, where something of another type was found.
var wants = map[string]string{
	"unit": `a unit's name, as a string`, "state": "a string", "exec": "a list of strings", "builtin": "a string", "required": "true or false",
	"timeout": durationHint, "grace": durationHint, "retry": durationHint,
}

const durationHint = `a duration in quotes (examples: "30s", "5m", "1m30s")`

// file is a NAME.toml that was understood. Its check lacks Name and Path.
type file struct {
	raw   raw
	check Check
}

// defines reports whether the file says what to check, and has not only options.
func (f *file) defines() bool { return f != nil && f.check.Kind != "" }

func inputf(format string, args ...any) error { return fault.New(fault.Input, format, args...) }

func readFile(name string) (*file, error) {
	// Not blocking: something else than a file could make the open wait for ever.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fault.New(fault.IO, "read health check: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.New(fault.IO, "read health check: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, inputf("%s: a health check must be a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fault.New(fault.IO, "read health check: %w", err)
	}
	return parse(name, data)
}

// raw is the shape of a check's file. Pointers tell a key that is missing from one that is set to its zero value.
type raw struct {
	Unit     *string   `toml:"unit"`
	State    *string   `toml:"state"`
	Exec     []string  `toml:"exec"`
	Builtin  *string   `toml:"builtin"`
	Required *bool     `toml:"required"`
	Timeout  *duration `toml:"timeout"`
	Grace    *duration `toml:"grace"`
	Retry    *duration `toml:"retry"`
}

// duration is a struct because the TOML library fills bare integers itself, without asking UnmarshalText.
type duration struct{ value time.Duration }

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%.40q is not "+durationHint, text)
	}
	d.value = v
	return nil
}

// parse reads a check's file; name is for messages. Errors are of kind Input.
func parse(name string, data []byte) (*file, error) {
	if len(data) > maxFileBytes {
		return nil, inputf("%s: more than %d bytes", name, maxFileBytes)
	}
	var r raw
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, explain(name, err)
	}
	return r.file(name)
}

func (r raw) file(name string) (*file, error) {
	f := &file{raw: r, check: Check{Required: true, Retry: defaultRetry}}
	if err := r.fill(&f.check); err != nil {
		return nil, inputf("%s: %w", name, err)
	}
	return f, nil
}

// over lays f, which has options only, key by key over what another folder's file says.
func (f *file) over(lower *file, name string) (*file, error) {
	if lower == nil {
		return f, nil
	}
	r := lower.raw
	if f.raw.Required != nil {
		r.Required = f.raw.Required
	}
	for _, d := range []struct{ upper, to **duration }{{&f.raw.Timeout, &r.Timeout}, {&f.raw.Grace, &r.Grace}, {&f.raw.Retry, &r.Retry}} {
		if *d.upper != nil {
			*d.to = *d.upper
		}
	}
	return r.file(name)
}

func (r *raw) fill(c *Check) error {
	if err := r.what(c); err != nil {
		return err
	}
	if r.Required != nil {
		if c.Builtin == Server {
			return errors.New("required: for the builtin \"server\" the machine's settings decide that, not this file")
		}
		c.Required = *r.Required
	}
	for _, d := range []struct {
		key      string
		v        *duration
		to       *time.Duration
		min, max time.Duration
	}{
		{"timeout", r.Timeout, &c.Timeout, time.Second, maxTimeout},
		{"grace", r.Grace, &c.Grace, 0, maxGrace},
		{"retry", r.Retry, &c.Retry, time.Second, maxRetry},
	} {
		if d.v == nil {
			continue
		}
		if d.v.value < d.min || d.v.value > d.max {
			return fmt.Errorf("%s must be from %s to %s, it is %s", d.key, d.min, d.max, d.v.value)
		}
		*d.to = d.v.value
	}
	return nil
}

// what finds the one key that says what to check.
func (r *raw) what(c *Check) error {
	n := 0
	if r.Unit != nil {
		n++
		c.Kind, c.Unit, c.State = Unit, *r.Unit, Active
		if err := checkUnitName(c.Unit); err != nil {
			return err
		}
	}
	if r.State != nil {
		if r.Unit == nil {
			return errors.New("state belongs to unit, which is missing")
		}
		if c.State = State(*r.State); c.State != Active && c.State != ExitedOK {
			return fmt.Errorf("unknown state %.40q (want %q or %q)", *r.State, Active, ExitedOK)
		}
		if c.State == ExitedOK && !strings.HasSuffix(c.Unit, ".service") {
			return fmt.Errorf("state %q is for services, which %s is not", ExitedOK, c.Unit)
		}
	}
	if r.Exec != nil {
		n++
		c.Kind, c.Argv = Exec, r.Exec
		if err := checkArgv(c.Argv); err != nil {
			return err
		}
	}
	if r.Builtin != nil {
		n++
		c.Kind, c.Builtin = Builtin, *r.Builtin
		if !slices.Contains(Builtins, c.Builtin) {
			if near := spelling.Nearest(c.Builtin, Builtins, 1); len(near) > 0 {
				return fmt.Errorf("unknown builtin %.40q, did you mean %q?", c.Builtin, near[0])
			}
			return fmt.Errorf("unknown builtin %.40q (there are %s)", c.Builtin, strings.Join(Builtins, ", "))
		}
	}
	if n > 1 {
		return errors.New("more than one of unit, exec and builtin: make a file for each")
	}
	return nil
}

func checkArgv(argv []string) error {
	if len(argv) == 0 || len(argv) > maxWords {
		return fmt.Errorf("exec has %d words, 1 to %d are allowed", len(argv), maxWords)
	}
	for _, w := range argv {
		if len(w) > maxWordBytes || strings.ContainsRune(w, 0) {
			return fmt.Errorf("exec: a word has at most %d bytes and no NUL", maxWordBytes)
		}
	}
	if !path.IsAbs(argv[0]) {
		return fmt.Errorf("exec: %.80q is not an absolute path", argv[0])
	}
	return nil
}

// explain turns the TOML library's error into one line with the file, the line and the nearest key.
func explain(name string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := &strict.Errors[0]
		line, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		if near := spelling.Nearest(key, keys, 1); len(near) > 0 {
			return inputf("%s:%d: unknown key %.80q, did you mean %q?", name, line, key, near[0])
		}
		return inputf("%s:%d: unknown key %.80q (keys are %s)", name, line, key, strings.Join(keys, ", "))
	}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		line, _ := de.Position()
		text := strings.TrimPrefix(de.Error(), "toml: ")
		key := strings.Join(de.Key(), ".")
		if want, ok := wants[key]; ok && strings.HasPrefix(text, "cannot ") { // the library would name Go types
			return inputf("%s:%d: %s: want %s", name, line, key, want)
		}
		if key != "" {
			return inputf("%s:%d: %.80s: %s", name, line, key, text)
		}
		return inputf("%s:%d: %s", name, line, text)
	}
	return inputf("%s: %w", name, err)
}
