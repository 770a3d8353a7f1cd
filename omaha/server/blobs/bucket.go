package blobs

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/semper-os/semper/fault"
)

const (
	partSize     = 16 << 20         // of an upload to a bucket, which keeps one part in memory; S3 wants 5 MiB to 5 GiB and at most 10,000 parts
	callTimeout  = 30 * time.Second // of a call that moves no file
	headerWait   = 30 * time.Second // for the first byte of an answer
	sendTimeout  = 2 * time.Hour    // of a file on its way to the bucket
	readStall    = 60 * time.Second // of one read of a file
	objectSuffix = "/full.crau"     // so that machines, or a CDN, can be pointed at the bucket
)

// Bucket keeps files in an S3-compatible object store. Its methods may be called from several goroutines, and several servers may share a bucket.
//
// In the bucket:
//
//	PREFIX/payloads/ab34…/full.crau   a file, by the lower-case hex of its SHA-256; never changed
//
// A publisher's upload arrives in a folder here first, as in a Folder, where size and hash are checked; then it goes to the bucket, which checks it once more, and leaves the
// folder. An object appears whole or not at all, so what breaks off on the way leaves nothing but the file in the folder, and the next upload goes on from there.
type Bucket struct {
	incoming *Folder
	core     *minio.Core
	name     string
	prefix   string
}

// OpenBucket opens a bucket, which must exist. Files that arrive are in the folder dir until they are in the bucket. The credentials come from AWS_ACCESS_KEY_ID and
// AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN), from the file AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials with the profile AWS_PROFILE, or from the machine's role.
func OpenBucket(ctx context.Context, l Location, dir string, now time.Time) (*Bucket, error) {
	name, prefix, err := l.parse()
	if err != nil {
		return nil, err
	}
	host, secure, err := l.endpoint()
	if err != nil {
		return nil, err
	}
	if err := checkCredentialsFile(); err != nil {
		return nil, err
	}
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	transport.ResponseHeaderTimeout = headerWait
	core, err := minio.NewCore(host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{Client: &http.Client{Transport: transport, Timeout: callTimeout}},
		}),
		Secure:     secure,
		Transport:  transport,
		Region:     l.Region,
		MaxRetries: 4,
	})
	if err != nil {
		return nil, fault.New(fault.Usage, "payload store %s: %w", l.Bucket, err)
	}
	b := &Bucket{core: core, name: name, prefix: prefix}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	switch found, err := core.BucketExists(ctx, name); {
	case err != nil:
		return nil, b.failed("look for the bucket", err)
	case !found:
		return nil, fault.New(fault.Input, "payload store %s: there is no such bucket: make it first", l.Bucket)
	}
	if b.incoming, err = Open(dir, now); err != nil {
		return nil, err
	}
	return b, nil
}

// checkCredentialsFile refuses a file of secrets that others can read.
func checkCredentialsFile() error {
	path := os.Getenv("AWS_SHARED_CREDENTIALS_FILE")
	if path == "" {
		home, _ := os.UserHomeDir() // a service without a home has no such file
		path = filepath.Join(home, ".aws", "credentials")
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fault.Wrap(fault.IO, err)
	case info.Mode().Perm()&0o077 != 0:
		return fault.New(fault.Input, "%s can be read by others (mode %#o): chmod 600 it", path, info.Mode().Perm())
	}
	return nil
}

func (b *Bucket) key(s Sum) string { return b.prefix + "payloads/" + s.String() + objectSuffix }

// failed says what could not be done with the bucket.
func (b *Bucket) failed(step string, err error) error {
	answer := minio.ToErrorResponse(err)
	switch {
	case answer.Code == "NoSuchKey":
		return fault.New(fault.IO, "bucket %s: %s: %w", b.name, step, fs.ErrNotExist)
	case answer.Code == "NoSuchBucket":
		return fault.New(fault.Input, "bucket %s: %s: there is no such bucket", b.name, step)
	case answer.StatusCode == http.StatusForbidden, answer.StatusCode == http.StatusUnauthorized:
		return fault.New(fault.Input, "bucket %s: %s: the credentials are refused: %w", b.name, step, err)
	}
	return fault.New(fault.IO, "bucket %s: %s: %w", b.name, step, err)
}

// stat returns the size of a file in the bucket.
func (b *Bucket) stat(ctx context.Context, s Sum) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	info, err := b.core.StatObject(ctx, b.name, b.key(s), minio.StatObjectOptions{})
	if err != nil {
		return 0, b.failed("look for "+b.key(s), err)
	}
	return info.Size, nil
}

// Size is part of Store.
func (b *Bucket) Size(ctx context.Context, s Sum) (size int64, complete bool, err error) {
	size, err = b.stat(ctx, s)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return size, err == nil, err
	}
	return b.incoming.Size(ctx, s)
}

// Append is part of Store.
func (b *Bucket) Append(ctx context.Context, s Sum, size, offset int64, r io.Reader) (sum1 [sha1.Size]byte, err error) {
	switch have, err := b.stat(ctx, s); {
	case err == nil:
		return b.complete(ctx, s, size, have)
	case !errors.Is(err, fs.ErrNotExist):
		return sum1, err
	}
	if sum1, err = b.incoming.Append(ctx, s, size, offset, r); err != nil {
		return sum1, err
	}
	if !b.incoming.claim(s) { // another upload of the same file has just come to its end too
		return sum1, fault.Wrap(fault.Input, ErrBusy)
	}
	defer b.incoming.release(s)
	if err := b.send(ctx, s, size); err != nil {
		return sum1, err
	}
	return sum1, b.incoming.remove(s)
}

// complete answers the upload of a file that is there.
func (b *Bucket) complete(ctx context.Context, s Sum, size, have int64) (sum1 [sha1.Size]byte, err error) {
	if have != size {
		return sum1, fault.New(fault.Input, "the file %s has %d bytes, not %d", s, have, size)
	}
	f, err := b.File(ctx, s, size)
	if err != nil {
		return sum1, err
	}
	defer f.Close()
	h := newHashes()
	if _, err := io.Copy(h, f); err != nil {
		return sum1, fault.Wrap(fault.IO, err)
	}
	if h.sha256() != s {
		return sum1, fault.New(fault.IO, "the file %s is damaged in the bucket %s: its SHA-256 is %s", s, b.name, h.sha256())
	}
	return h.sha1(), nil
}

// send puts a file that has arrived into the bucket.
func (b *Bucket) send(ctx context.Context, s Sum, size int64) error {
	f, err := b.incoming.File(ctx, s, size)
	if errors.Is(err, fs.ErrNotExist) { // the other upload of it was faster
		if _, err := b.stat(ctx, s); err != nil {
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	_, err = b.core.Client.PutObject(ctx, b.name, b.key(s), f, size, minio.PutObjectOptions{
		ContentType:    "application/octet-stream",
		CacheControl:   "public, max-age=31536000, immutable",
		PartSize:       partSize,
		SendContentMd5: true, // of each part: what the store keeps is what was sent. All stores know it, and newer sums only some
	})
	if err != nil {
		return b.failed("keep "+b.key(s), err)
	}
	if have, err := b.stat(ctx, s); err != nil || have != size {
		return fault.New(fault.IO, "bucket %s: %s has %d bytes after the upload, and not %d (%w)", b.name, b.key(s), have, size, err)
	}
	return nil
}

// File is part of Store.
func (b *Bucket) File(ctx context.Context, s Sum, size int64) (io.ReadSeekCloser, error) {
	have, err := b.stat(ctx, s)
	if err != nil {
		return nil, err
	}
	if have != size {
		return nil, fault.New(fault.IO, "bucket %s: %s has %d bytes instead of %d", b.name, b.key(s), have, size)
	}
	return &object{ctx: ctx, b: b, key: b.key(s), size: size}, nil
}

// object is a file in a bucket that is being read. A connection that breaks is made anew where it broke.
type object struct {
	ctx  context.Context
	b    *Bucket
	key  string
	size int64

	at     int64         // where the next byte comes from
	body   io.ReadCloser // from there on; nil: not asked yet
	cancel func()        // ends the body's connection
	fails  int           // in a row
}

// maxFails is how often a file is asked for again without a byte of it.
const maxFails = 3

func (o *object) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for o.at < o.size {
		if o.body == nil {
			if err := o.open(); err != nil {
				return 0, err
			}
		}
		stalled := time.AfterFunc(readStall, o.cancel)
		n, err := o.body.Read(p[:min(int64(len(p)), o.size-o.at)])
		stalled.Stop()
		o.at += int64(n)
		if n > 0 {
			o.fails = 0
			return n, nil // an error comes again, or not
		}
		if err == nil {
			continue
		}
		_ = o.Close()
		if o.fails++; o.fails > maxFails || o.ctx.Err() != nil {
			return 0, o.b.failed(fmt.Sprintf("read %s at %d", o.key, o.at), errors.Join(err, o.ctx.Err()))
		}
	}
	return 0, io.EOF
}

func (o *object) open() error {
	var opts minio.GetObjectOptions
	if o.at > 0 {
		if err := opts.SetRange(o.at, o.size-1); err != nil {
			return fault.Wrap(fault.IO, err)
		}
	}
	ctx, cancel := context.WithCancel(o.ctx)
	body, _, _, err := o.b.core.GetObject(ctx, o.b.name, o.key, opts)
	if err != nil {
		cancel()
		return o.b.failed("read "+o.key, err)
	}
	o.body, o.cancel = body, cancel
	return nil
}

func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.at
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 {
		return 0, fault.New(fault.Input, "seek before the beginning of %s", o.key)
	}
	if offset != o.at {
		_ = o.Close()
		o.at = offset
	}
	return offset, nil
}

func (o *object) Close() error {
	if o.body == nil {
		return nil
	}
	err := o.body.Close()
	o.cancel()
	o.body = nil
	return fault.Wrap(fault.IO, err)
}
