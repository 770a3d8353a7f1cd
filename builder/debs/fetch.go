package debs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/progress"
)

const (
	connections = 8
	attempts    = 5
)

var hashers = runtime.GOMAXPROCS(0)

// Fetcher downloads packages from the mirrors.
type Fetcher struct {
	mirrors lock.Mirrors
	client  *http.Client
	backOff time.Duration // before the second attempt; doubled for each one after
	stall   time.Duration // a download that brings nothing for so long is broken off
}

// NewFetcher returns a fetcher for the mirrors. Proxies are those of the host's apt, else the environment's.
func NewFetcher(m lock.Mirrors) *Fetcher {
	return &Fetcher{
		mirrors: m,
		client: &http.Client{Transport: &http.Transport{
			Proxy:                 proxyFor(m),
			DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
			MaxConnsPerHost:       connections,
			MaxIdleConnsPerHost:   connections,
			IdleConnTimeout:       30 * time.Second,
			TLSHandshakeTimeout:   30 * time.Second,
			ResponseHeaderTimeout: time.Minute,
			DisableCompression:    true,
		}},
		backOff: 500 * time.Millisecond,
		stall:   time.Minute,
	}
}

func proxyFor(m lock.Mirrors) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		switch p := m.Proxies[r.URL.Scheme]; p {
		case "":
			return http.ProxyFromEnvironment(r)
		case "DIRECT":
			return nil, nil
		default:
			return url.Parse(p)
		}
	}
}

// partial is a package on its way into the store.
type partial struct {
	lock.Package
	file *os.File
	hash hash.Hash
	have int64 // bytes in file, all of them hashed
	bar  *progress.Bar
}

// fetch brings one package into the store. Who comes second waits for the first, and then finds the work done.
func (s *Store) fetch(ctx context.Context, p lock.Package, f *Fetcher, bar *progress.Bar) error {
	if err := os.MkdirAll(filepath.Dir(s.base(p)), 0o755); err != nil {
		return storeError(err)
	}
	file, err := openLocked(ctx, s.base(p)+".part")
	if err != nil {
		return err
	}
	defer file.Close() // and with it the lock
	if ok, err := s.verified(p); err != nil {
		return storeError(err)
	} else if ok {
		bar.Add(p.Size)
		return storeError(os.Remove(file.Name()))
	}
	d := &partial{Package: p, file: file, hash: sha256.New(), bar: bar}
	if err := d.resume(); err != nil {
		return err
	}
	if err := f.complete(ctx, d); err != nil {
		return err
	}
	if err := file.Chmod(0o644); err != nil {
		return storeError(err)
	}
	return storeError(os.Rename(file.Name(), s.Path(p)))
}

// storeError says what a failed write most often means.
func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.New(fault.IO, "package store: disk full: %w", err)
	default:
		return fault.New(fault.IO, "package store: %w", err)
	}
}

// openLocked opens a file that is being downloaded and waits until nobody else holds it.
func openLocked(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, storeError(err)
		}
		if err := waitForLock(ctx, f); err != nil {
			f.Close()
			return nil, err
		}
		// The one before us may have renamed or removed the file we were waiting for: then its lock says nothing about the name.
		ours, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, storeError(err)
		}
		if named, err := os.Stat(path); err == nil && os.SameFile(ours, named) {
			return f, nil
		}
		f.Close()
	}
}

func waitForLock(ctx context.Context, f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return storeError(fmt.Errorf("lock %s: %w", f.Name(), err))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// resume hashes what an interrupted download left.
func (d *partial) resume() error {
	n, err := io.Copy(d.hash, io.LimitReader(d.file, d.Size+1))
	if err != nil {
		return storeError(err)
	}
	if n > d.Size {
		return d.restart()
	}
	d.have = n
	d.bar.Add(n)
	return nil
}

// restart throws away what is there.
func (d *partial) restart() error {
	d.bar.Add(-d.have)
	d.have = 0
	d.hash.Reset()
	if err := d.file.Truncate(0); err != nil {
		return storeError(err)
	}
	_, err := d.file.Seek(0, io.SeekStart)
	return storeError(err)
}

// errPermanent marks a failure that another attempt would only repeat.
type errPermanent struct{ error }

func (e errPermanent) Unwrap() error { return e.error }

// complete downloads until the package is whole and has the right hash.
func (f *Fetcher) complete(ctx context.Context, d *partial) error {
	wait := f.backOff
	mismatches := 0
	var last error
	for range attempts {
		if last != nil {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(wait):
				wait *= 2
			}
		}
		if d.have < d.Size {
			last = f.download(ctx, d)
		} else {
			last = nil // an interrupted run had all of it
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var permanent errPermanent
		if errors.As(last, &permanent) {
			return permanent.error
		}
		if last != nil {
			continue
		}
		got := hex.EncodeToString(d.hash.Sum(nil))
		if got == d.SHA256 {
			return nil
		}
		// Once may be a damaged rest of an earlier download, or a proxy's bad day; twice is the mirror's word.
		if err := d.restart(); err != nil {
			return err
		}
		last = fault.New(fault.Verification, "%s has the wrong SHA-256: expected %s, got %s", f.mirrors.URL(d.Package), d.SHA256, got)
		if mismatches++; mismatches == 2 {
			return last
		}
	}
	if fault.Is(last, fault.Verification) {
		return last
	}
	return fault.New(fault.Network, "%w (tried %d times)", last, attempts)
}

// download makes one attempt to fetch what is missing.
func (f *Fetcher) download(ctx context.Context, d *partial) error {
	source := f.mirrors.URL(d.Package)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body, err := f.open(ctx, source, d)
	if err != nil {
		return err
	}
	defer body.Close()
	watchdog := time.AfterFunc(f.stall, func() {
		cancel(fmt.Errorf("%s: nothing came for %s", source, f.stall))
	})
	defer watchdog.Stop()
	buffer := make([]byte, 64<<10)
	for {
		n, err := body.Read(buffer)
		watchdog.Reset(f.stall)
		if d.have+int64(n) > d.Size {
			if err := d.restart(); err != nil {
				return errPermanent{err}
			}
			return errPermanent{fault.New(fault.Verification, "%s is larger than the %d bytes that the lock names", source, d.Size)}
		}
		if _, err := d.file.Write(buffer[:n]); err != nil {
			return errPermanent{storeError(err)}
		}
		d.hash.Write(buffer[:n])
		d.have += int64(n)
		d.bar.Add(int64(n))
		switch {
		case errors.Is(err, io.EOF) && d.have == d.Size:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%s broke off after %d of %d bytes", source, d.have, d.Size)
		case err != nil:
			return fmt.Errorf("%s broke off after %d of %d bytes: %w", source, d.have, d.Size, cmp.Or(context.Cause(ctx), err))
		}
	}
}

// open begins the transfer at d.have, or at the start where the source cannot do better.
func (f *Fetcher) open(ctx context.Context, source string, d *partial) (io.ReadCloser, error) {
	u, err := url.Parse(source)
	if err != nil {
		return nil, errPermanent{fault.New(fault.Input, "mirror: %w", err)}
	}
	if u.Scheme == "file" || u.Scheme == "copy" {
		return openFile(u.Path, d)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, errPermanent{fault.New(fault.Input, "mirror: %w", err)}
	}
	request.Header.Set("User-Agent", "semper")
	if d.have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.have))
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, err
	}
	switch code := response.StatusCode; {
	case code == http.StatusOK:
		if err := d.restart(); err != nil {
			response.Body.Close()
			return nil, errPermanent{err}
		}
		return response.Body, nil
	case code == http.StatusPartialContent && d.have > 0 && strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", d.have)):
		return response.Body, nil
	case code == http.StatusRequestedRangeNotSatisfiable, code == http.StatusPartialContent:
		response.Body.Close()
		if err := d.restart(); err != nil {
			return nil, errPermanent{err}
		}
		return nil, fmt.Errorf("%s: %s for a range", source, response.Status)
	case code == http.StatusNotFound, code == http.StatusGone:
		response.Body.Close()
		return nil, errPermanent{fault.New(fault.Network, "%s: %s: the mirror does not have this version (any more): "+
			"run 'semper lock' for today's versions, or give --mirror an archive of old ones", source, response.Status)}
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		response.Body.Close()
		return nil, fmt.Errorf("%s: %s", source, response.Status)
	default:
		response.Body.Close()
		return nil, errPermanent{fault.New(fault.Network, "%s: %s", source, response.Status)}
	}
}

func openFile(path string, d *partial) (io.ReadCloser, error) {
	if err := d.restart(); err != nil {
		return nil, errPermanent{err}
	}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errPermanent{fault.New(fault.Input, "the mirror does not have this version: %w", err)}
	}
	if err != nil {
		return nil, errPermanent{fault.New(fault.IO, "mirror: %w", err)}
	}
	return file, nil
}
