package blobs

import (
	"context"
	"crypto/sha1"
	"io"
	"net/url"
	"strings"

	"github.com/semper-os/semper/fault"
)

// Store is where payload files are: a Folder, or a Bucket.
type Store interface {
	// File opens a complete file; the error of a missing one is fs.ErrNotExist, and one that has another size than that is an error of kind IO.
	File(ctx context.Context, s Sum, size int64) (io.ReadSeekCloser, error)

	// Size returns the size of a complete file, or of what has arrived of one so far.
	Size(ctx context.Context, s Sum) (size int64, complete bool, err error)

	// Append takes the bytes of a file from offset, which must be what has arrived so far, to its end at size. It returns the file's SHA-1
	// once the file is complete and kept. When r breaks off, what has arrived is kept for the next call and r's error is returned.
	// A file that is complete already is not read again; its SHA-1 is computed anew.
	Append(ctx context.Context, s Sum, size, offset int64, r io.Reader) ([sha1.Size]byte, error)
}

// Location says where payload files are when they are not in the data folder.
type Location struct {
	Bucket   string // s3://BUCKET or s3://BUCKET/PREFIX; empty: the data folder
	Endpoint string // the S3 service's URL; Amazon's when empty
	Region   string // asked from the service when empty
}

// parse returns the bucket and what the names of its objects begin with.
func (l Location) parse() (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(l.Bucket, "s3://")
	bucket, prefix, _ = strings.Cut(rest, "/")
	if !ok || bucket == "" || strings.ContainsAny(rest, "?#") {
		return "", "", fault.New(fault.Usage, "payload store %q: want s3://BUCKET or s3://BUCKET/PREFIX", l.Bucket)
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return bucket, prefix, nil
}

// endpoint returns the host of the service, and whether to speak TLS with it.
func (l Location) endpoint() (host string, secure bool, err error) {
	if l.Endpoint == "" {
		return "s3.amazonaws.com", true, nil
	}
	u, err := url.Parse(l.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return "", false, fault.New(fault.Usage, "S3 endpoint %q: want a URL such as https://s3.example.org", l.Endpoint)
	}
	return u.Host, u.Scheme == "https", nil
}
