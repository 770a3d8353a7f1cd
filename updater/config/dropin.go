package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/durable"
)

// DropInName is the file that semperctl writes, in /etc/semper/update.d or /run/semper/update.d. Nothing else should use the name.
const DropInName = "90-semperctl.toml"

const dropInHeader = "# Written by semperctl, which writes it anew at each change. Put settings of your own into another file.\n"

// WriteDropIn sets keys in the drop-in name of dir, one of Folders, below root, and keeps the others that are there. Values are strings, bools, ints,
// time.Durations or []string. The change is tried first: what Load would refuse is not written, and it is durable when WriteDropIn returns.
// The result is what Load returns now, without any credential; where the Origin of a key is another file, a later one overrides it.
func WriteDropIn(root, dir, name string, set map[string]any) (Settings, error) {
	return change(root, dir, name, func(values map[string]any) error {
		for key, v := range set {
			if lookup(key) == nil {
				return fault.New(fault.Input, "unknown key %q%s", clip(key), suggestion(key))
			}
			plain, err := decoded(v)
			if err != nil {
				return fault.New(fault.Input, "%s: %w", key, err)
			}
			values[key] = plain
		}
		return nil
	})
}

// RemoveKey takes keys out of such a drop-in, and removes the file with its last key. Keys and files that are not there are fine.
func RemoveKey(root, dir, name string, names ...string) (Settings, error) {
	return change(root, dir, name, func(values map[string]any) error {
		for _, key := range names {
			if lookup(key) == nil {
				return fault.New(fault.Input, "unknown key %q%s", clip(key), suggestion(key))
			}
			delete(values, key)
		}
		return nil
	})
}

func suggestion(key string) string {
	if near := nearest(key, names()); near != "" {
		return fmt.Sprintf(", did you mean %q?", near)
	}
	return ""
}

// decoded is v as the TOML library would decode it.
func decoded(v any) (any, error) {
	switch x := v.(type) {
	case string:
		if !utf8.ValidString(x) {
			return nil, errors.New("not UTF-8 text")
		}
		return x, nil
	case bool, int64:
		return x, nil
	case int:
		return int64(x), nil
	case time.Duration:
		return durationText(x), nil
	case []string:
		items := make([]any, len(x))
		for i := range x {
			if !utf8.ValidString(x[i]) {
				return nil, errors.New("not UTF-8 text")
			}
			items[i] = x[i]
		}
		return items, nil
	default:
		return nil, fmt.Errorf("a setting cannot be a %T", v)
	}
}

func change(root, dir, name string, edits func(map[string]any) error) (Settings, error) {
	if !slices.Contains(Folders, dir) || !isDropIn(name) || strings.ContainsAny(name, "/\x00") {
		return Settings{}, fault.New(fault.Input, "%s/%s is no place for settings: want NAME.toml in one of %s", dir, name, strings.Join(Folders, ", "))
	}
	dir = filepath.Join(root, dir)
	if err := makeFolder(dir); err != nil {
		return Settings{}, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return Settings{}, err
	}
	defer unlock()

	path := filepath.Join(dir, name)
	values := map[string]any{}
	old, err := read(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return Settings{}, err
	}
	there, err := parse(path, old)
	if err != nil {
		return Settings{}, err
	}
	for _, x := range there {
		values[x.name] = x.value
	}
	if err := edits(values); err != nil {
		return Settings{}, err
	}
	if len(values) == 0 && missing {
		return Load(root, "")
	}
	text := dropInHeader
	for _, k := range keys {
		if v, ok := values[k.name]; ok {
			line, err := assignment(k.name, v)
			if err != nil {
				return Settings{}, fault.New(fault.Input, "%s: %s: %w", path, k.name, err)
			}
			text += line + "\n"
		}
	}
	return replace(root, path, []byte(text), len(values) == 0)
}

// replace writes data beside path, tries the settings with it, and puts it in place; or removes path.
func replace(root, path string, data []byte, remove bool) (_ Settings, err error) {
	dir, name := filepath.Split(path)
	d, err := durable.OpenDir(dir)
	if err != nil {
		return Settings{}, err
	}
	defer func() { _ = d.Close() }()
	if remove {
		s, err := load(root, "", edit{path: path, gone: true})
		if err != nil {
			return Settings{}, err
		}
		if err := errors.Join(d.Remove(name), d.Sync()); err != nil {
			return Settings{}, fault.New(fault.IO, "remove %s: %w", path, err)
		}
		return s, nil
	}
	temp := name + ".new"
	defer func() {
		if err != nil {
			_ = d.Remove(temp)
		}
	}()
	if err := create(d, dir, temp, data); err != nil {
		return Settings{}, fault.New(fault.IO, "write %s: %w", path, err)
	}
	data, err = durable.Read(d, temp, maxFileBytes)
	if err != nil {
		return Settings{}, err
	}
	s, err := load(root, "", edit{path: path, data: data})
	if err != nil {
		return Settings{}, fmt.Errorf("nothing is changed: %w", err)
	}
	if err := errors.Join(d.Rename(temp, name), d.Sync()); err != nil {
		return Settings{}, fault.New(fault.IO, "write %s: %w", path, err)
	}
	return s, nil
}

// create writes a file that semperd, another user, can read.
func create(d *durable.Dir, dir, name string, data []byte) error {
	f, err := d.Create(name)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = os.Chmod(filepath.Join(dir, name), 0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// makeFolder makes dir where it is missing, for all to read whatever the umask, and durably.
func makeFolder(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil // what else may be wrong with it is told by who uses it
	}
	parent := filepath.Dir(dir)
	if err := makeFolder(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fault.New(fault.IO, "make settings folder: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fault.New(fault.IO, "make settings folder: %w", err)
	}
	d, err := durable.OpenDir(parent)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fault.New(fault.IO, "make settings folder: %w", err)
	}
	return nil
}

// lock keeps two semperctls from changing one file at the same time.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fault.New(fault.IO, "lock settings folder: %w", err)
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fault.New(fault.IO, "lock %s: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil
}
