package payload

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Cache keeps compressed chunks from one payload to the next. Its methods are called by several goroutines at once. The key is the SHA-256 of a chunk
// and of everything that shapes its compressed form. What Get returns is checked, so a cache may lose or damage entries, and Put may fail in silence.
type Cache interface {
	Get(key [sha256.Size]byte) (blob []byte, ok bool)
	Put(key [sha256.Size]byte, blob []byte) // must not keep blob
}

// DirCache is a Cache in a folder, which is made when it is first needed: a file for each chunk, named by its key. A file's
// modification time is its last use, so that whoever owns the folder can delete what is old.
type DirCache struct {
	Dir string
	Now func() time.Time // the clock for last use; nil leaves the times alone
}

func (d DirCache) path(key [sha256.Size]byte) string {
	name := hex.EncodeToString(key[:])
	return filepath.Join(d.Dir, name[:2], name[2:])
}

// Get reads a chunk.
func (d DirCache) Get(key [sha256.Size]byte) ([]byte, bool) {
	path := d.path(key)
	blob, err := os.ReadFile(path)
	if err != nil {
		return nil, false
	}
	if d.Now != nil {
		now := d.Now()
		_ = os.Chtimes(path, now, now) // at worst the entry is deleted too early
	}
	return blob, true
}

// Put writes a chunk; where that fails the chunk is compressed again next time. There is no fsync: a torn file is found by Get's caller.
func (d DirCache) Put(key [sha256.Size]byte, blob []byte) {
	path := d.path(key)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".chunk-*")
	if err != nil {
		return
	}
	_, err = f.Write(blob)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
}

const encoderModule = "github.com/klauspost/compress"

// encoderVersion returns the version of the zstd encoder that is built into this program. Test programs do not know it.
func encoderVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == encoderModule {
				return m.Version
			}
		}
	}
	return "unknown"
}

// encoderSalt stands for everything besides the chunk that shapes its compressed form: blobs of another encoder must not slip into a payload
// that is to be reproducible. The version says so by name, and where it is unknown or replaced, a sample shows that it is another one.
func encoderSalt(enc *zstd.Encoder, opts *WriteOptions) []byte {
	var sample []byte
	for i := range 2000 {
		sample = fmt.Appendf(sample, "%d %x\n", i, i*i*i%10007)
	}
	return fmt.Appendf(nil, "semper payload chunk: zstd %s %x, level %d, chunks of %d\n",
		encoderVersion(), sha256.Sum256(enc.EncodeAll(sample, nil)), opts.Level, opts.ChunkSize)
}
