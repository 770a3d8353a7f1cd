package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/updater/wire"
)

const (
	// roundTries is how often all URLs are tried in vain, that is without a single new byte, before the attempt counts as failed.
	roundTries = 5
	// stallLimit is how long a download may stand still.
	stallLimit = 90 * time.Second
	// pieceSize is what is handed over at once.
	pieceSize = wire.MaxFrame
)

// Progress is how far the current installation is.
type Progress struct {
	Version string `json:"version"`
	Done    int64  `json:"done"`  // bytes of the payload
	Total   int64  `json:"total"` // bytes of the payload
	URL     string `json:"url"`
}

// install brings payload u into the idle slot.
func (a *Agent) install(ctx context.Context, u omaha.Payload) error {
	if u.Size > a.setup.Settings.Payload.MaxSize {
		return &coded{fault.New(fault.Verification, "the payload has %d bytes, this machine accepts %d (payload.max_size)", u.Size, a.setup.Settings.Payload.MaxSize), omaha.CodePayloadSize}
	}
	d := download{a: a, u: u, limit: throttle{clock: a.o.Clock, rate: a.setup.Settings.Network.BandwidthLimit}, begin: wire.Begin{SHA256: hex.EncodeToString(u.SHA256[:]), Size: u.Size, Version: u.Version}}
	return d.run(ctx)
}

func (a *Agent) setProgress(p Progress) {
	a.mu.Lock()
	a.progress = p
	a.mu.Unlock()
	a.publish()
}

// download is one attempt at a payload, over several connections.
type download struct {
	a     *Agent
	u     omaha.Payload
	begin wire.Begin
	limit throttle

	announced bool  // the server knows that the download started
	best      int64 // the furthest offset that semper-installd asked for
	moved     bool  // it asked for a further one this time: the connection before brought something that stays
}

// run tries one URL after the other. A URL whose bytes were refused is not asked again; the others are, with growing waits, as long as there is progress
// now and then. What counts as progress is what semper-installd keeps, not what was received: a file that is cut off for good is received again and again.
func (d *download) run(ctx context.Context) error {
	urls := inOrder(d.a, d.u.URLs, func(u string) string { return u })
	var refused error // why a URL was given up
	for vain := 0; ; {
		var last error
		for i := 0; i < len(urls); i++ {
			d.moved = false
			err := d.fetch(ctx, urls[i])
			if err == nil {
				d.a.good(urls[i])
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			d.a.o.Log.Warn("download", "version", d.u.Version, "url", urls[i], "error", err)
			if d.moved {
				vain = 0
			} else if fault.Is(err, fault.Network) || lasting(err) && mirror(err) {
				d.a.bad(urls[i], err)
			}
			last = err
			if !lasting(err) {
				if !brief(err) {
					return err
				}
				continue
			}
			if !mirror(err) {
				return err
			}
			refused = err
			urls = append(urls[:i:i], urls[i+1:]...)
			i--
		}
		if len(urls) == 0 {
			return refused
		}
		if vain++; vain >= roundTries {
			if refused != nil {
				return refused
			}
			return last
		}
		if err := d.a.o.Clock.Sleep(ctx, d.a.backoff(downloadRetry, vain)); err != nil {
			return err
		}
	}
}

// brief reports whether the next minute, or another URL, may help against a failure of the moment: the line broke, or somebody else's installation is in
// the way. At a full or failing disk the payload is not downloaded again and again; the next check is soon enough.
func brief(err error) bool {
	switch code := codeOf(err).Base(); code {
	case omaha.CodeTransfer, omaha.CodeDeferredByPolicy:
		return true
	default:
		return code >= omaha.CodeHTTPBase
	}
}

// mirror reports whether another URL may have better bytes: what arrived is not what was announced or signed. A refusal by policy is the same from
// everywhere.
func mirror(err error) bool {
	return !codeOf(err).ByRules()
}

// fetch downloads from one URL what semper-installd does not have yet, and finishes the installation.
func (d *download) fetch(ctx context.Context, url string) error {
	inst, err := d.a.o.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = inst.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = inst.Close() })
	defer stop()
	offset, err := inst.Begin(d.begin)
	if err != nil {
		return err
	}
	if !d.announced {
		d.announced = true
		d.a.tell(ctx, omaha.DownloadStarted(d.u.Version))
	}
	d.moved, d.best = offset > d.best, max(offset, d.best)
	d.a.setProgress(Progress{Version: d.u.Version, Done: offset, Total: d.u.Size, URL: url})
	if offset < d.u.Size {
		if err := d.stream(ctx, url, offset, inst); err != nil {
			// Hanging up would end the session too, but not before the next one is asked for. After a refusal there is none any more.
			_ = inst.Abort()
			return err
		}
	}
	d.a.tell(ctx, omaha.DownloadFinished(d.u.Version))
	d.a.enter(StateInstalling, "version "+d.u.Version)
	if err := inst.Finish(); err != nil {
		d.a.enter(StateDownloading, "version "+d.u.Version)
		return err
	}
	return nil
}

// stream passes the payload's bytes from offset on to inst.
func (d *download) stream(ctx context.Context, url string, offset int64, inst Installer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallLimit, func() {
		cancel(fault.New(fault.Network, "%s: no data for %s", url, stallLimit))
	})
	defer stalled.Stop()
	body, err := d.get(ctx, url, offset, stalled)
	if err != nil {
		return cause(ctx, err)
	}
	defer body.Close()
	buf := make([]byte, pieceSize)
	for offset < d.u.Size {
		n, err := io.ReadFull(body, buf[:min(int64(len(buf)), d.u.Size-offset)])
		if n > 0 {
			stalled.Stop() // the disk may take its time
			if err := inst.Data(buf[:n]); err != nil {
				return err
			}
			offset += int64(n)
			d.a.setProgress(Progress{Version: d.u.Version, Done: offset, Total: d.u.Size, URL: url})
			if err := d.limit.wait(ctx, n); err != nil {
				return cause(ctx, err)
			}
			stalled.Reset(stallLimit)
		}
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("the transfer ended after %d of %d bytes", offset, d.u.Size)
			}
			return cause(ctx, fault.New(fault.Network, "%s: %w", url, err))
		}
	}
	return nil
}

// alive restarts the stall timer with each byte that arrives.
type alive struct {
	io.ReadCloser
	stalled *time.Timer
}

func (r alive) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if n > 0 {
		r.stalled.Reset(stallLimit)
	}
	return n, err
}

// cause prefers the reason for which a context was cancelled.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && !errors.Is(c, context.Canceled) {
		return c
	}
	return err
}

// get opens url at offset. A server that ignores ranges sends everything, and what is known already is skipped.
func (d *download) get(ctx context.Context, url string, offset int64, stalled *time.Timer) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, &coded{fault.New(fault.Input, "payload address: %w", err), omaha.CodeResponseHandler}
	}
	req.Header.Set("User-Agent", d.a.machine().UserAgent)
	req.Header.Set("Accept-Encoding", "identity") // the bytes are counted and hashed as they are stored
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, err := d.a.setup.HTTP.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Network, err)
	}
	body := alive{res.Body, stalled}
	err = func() error {
		if res.StatusCode < 300 && webPage(res.Header) {
			return fault.New(fault.Network, "%s: a web page came instead of the payload, as from a captive portal or a proxy that wants a login", url)
		}
		switch res.StatusCode {
		case http.StatusOK:
			if res.ContentLength >= 0 && res.ContentLength != d.u.Size {
				return wrongSize(url, res.ContentLength, d.u.Size)
			}
			if _, err := io.CopyN(io.Discard, body, offset); err != nil {
				return fault.New(fault.Network, "%s: skip to byte %d: %w", url, offset, err)
			}
			return nil
		case http.StatusPartialContent:
			got, want := strings.TrimSpace(res.Header.Get("Content-Range")), fmt.Sprintf("bytes %d-%d/%d", offset, d.u.Size-1, d.u.Size)
			if _, total, ok := strings.Cut(got, "/"); ok {
				if n, err := strconv.ParseInt(total, 10, 64); err == nil && n != d.u.Size {
					return wrongSize(url, n, d.u.Size)
				}
			}
			if offset == 0 || got != want {
				return fault.New(fault.Network, "%s: the server sent range %.80q, want %q", url, got, want)
			}
			return nil
		case http.StatusRequestedRangeNotSatisfiable:
			return fault.New(fault.Network, "%s: the server says that it has less than the %d bytes that were announced", url, d.u.Size)
		default:
			return fault.New(fault.Network, "%s: the server answered %.80q", url, res.Status)
		}
	}()
	if err != nil {
		res.Body.Close()
		return nil, err
	}
	return body, nil
}

// wrongSize is a server, or a cache before it, that says itself that it has another file than the one announced: an older one, or a part. Nothing of it was
// looked at, so it says nothing against the version.
func wrongSize(url string, have, announced int64) error {
	return fault.New(fault.Network, "%s: the file has %d bytes, %d were announced: an old one, or not all of it", url, have, announced)
}

// webPage reports whether an answer is one that people are meant to see.
func webPage(h http.Header) bool {
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return kind == "text/html" || kind == "application/xhtml+xml"
}
