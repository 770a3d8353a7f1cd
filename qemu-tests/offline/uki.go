package offline

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// image is what the boot loader and the kernel see of a UKI.
type image struct {
	sum       [sha256.Size]byte
	osRelease map[string]string
	rootHash  [32]byte
	// err is why it is not whole, skip why the boot loader does not list it.
	err, skip error
}

func readImage(b []byte) image {
	m := image{sum: sha256.Sum256(b)}
	sections, err := readSections(b)
	if err != nil {
		m.skip = err
		return m
	}
	release, ok := sections[".osrel"]
	if !ok {
		m.skip = errors.New("it has no .osrel")
		return m
	}
	m.osRelease = readRelease(string(release.data))
	if pick(m.osRelease, "PRETTY_NAME", "IMAGE_ID", "NAME", "ID") == "" {
		m.skip = errors.New("its .osrel names no system")
		return m
	}
	for _, name := range []string{".linux", ".initrd", ".cmdline"} {
		if s, ok := sections[name]; !ok || len(s.data) == 0 {
			m.err = fmt.Errorf("it has no %s", name)
			return m
		}
	}
	for name, s := range sections {
		if s.err != nil {
			m.err = fmt.Errorf("%s: %w", name, s.err)
			return m
		}
	}
	for word := range strings.FieldsSeq(string(sections[".cmdline"].data)) {
		if value, ok := strings.CutPrefix(word, "roothash="); ok {
			hash, err := hex.DecodeString(value)
			if err != nil || len(hash) != 32 {
				m.err = fmt.Errorf("roothash=%.80s is not a root hash", value)
				return m
			}
			m.rootHash = [32]byte(hash)
			return m
		}
	}
	m.err = errors.New("its .cmdline has no roothash=")
	return m
}

type section struct {
	data []byte
	err  error
}

func readSections(b []byte) (map[string]section, error) {
	le := binary.LittleEndian
	if len(b) < 64 || b[0] != 'M' || b[1] != 'Z' {
		return nil, errors.New("it is not a PE file")
	}
	at := int64(le.Uint32(b[60:]))
	if at > int64(len(b))-24 || string(b[at:at+4]) != "PE\x00\x00" {
		return nil, errors.New("it has no PE header")
	}
	count, optional := int64(le.Uint16(b[at+6:])), int64(le.Uint16(b[at+20:]))
	table := at + 24 + optional
	if count == 0 || count > 96 || optional < 96 || table+40*count > int64(len(b)) {
		return nil, errors.New("its section table makes no sense")
	}
	sections := map[string]section{}
	for i := range count {
		h := b[table+40*i : table+40*i+40]
		name := strings.TrimRight(string(h[:8]), "\x00")
		virtual, size, from := int64(le.Uint32(h[8:])), int64(le.Uint32(h[16:])), int64(le.Uint32(h[20:]))
		if from+size > int64(len(b)) {
			sections[name] = section{err: fmt.Errorf("its bytes %d to %d are behind the end of the file", from, from+size)}
			continue
		}
		sections[name] = section{data: b[from : from+min(size, virtual)]}
	}
	return sections, nil
}

func readRelease(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.TrimRight(line, "\x00\n"))
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			m[key] = strings.Trim(value, `"'`)
		}
	}
	return m
}

func pick(m map[string]string, keys ...string) string {
	for _, k := range keys {
		if m[k] != "" {
			return m[k]
		}
	}
	return ""
}
