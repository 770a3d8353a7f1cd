package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/progress"
)

// Upload brings a file to the server and returns the number of bytes that had to be sent. It goes on where an earlier upload stopped,
// tries again when the connection breaks, and does nothing when the server has the file. The bar counts the file's bytes.
func (c *Client) Upload(ctx context.Context, f api.File, content io.ReaderAt, bar *progress.Bar) (sent int64, err error) {
	shown := int64(0)
	for attempt := range uploadAttempts {
		if attempt > 0 {
			if err := c.pause(ctx, time.Second<<attempt); err != nil {
				return sent, fault.Wrap(fault.Network, err)
			}
		}
		var state api.Blob
		if state, err = c.Blob(ctx, f.SHA256); err == nil {
			if state.Complete {
				bar.Add(f.Size - shown)
				return sent, nil
			}
			if state.Offset < 0 || state.Offset >= f.Size {
				return sent, fault.New(fault.Input, "upload %s: the server claims to have %d of %d bytes", f.Name, state.Offset, f.Size)
			}
			bar.Add(state.Offset - shown)
			shown = state.Offset
			section := &counter{r: io.NewSectionReader(content, state.Offset, f.Size-state.Offset), bar: bar}
			err = c.putBlob(ctx, f, state.Offset, section)
			shown += section.n
			sent += section.n
			if err == nil {
				return sent, nil
			}
		}
		if !again(ctx, err) {
			break
		}
	}
	return sent, fmt.Errorf("upload %s: %w", f.Name, err)
}

// again reports whether the same request may succeed later.
func again(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	var status *StatusError
	if errors.As(err, &status) {
		return status.Status >= 500 && status.Status != http.StatusInsufficientStorage || status.Status == http.StatusConflict
	}
	return fault.Is(err, fault.Network)
}

type counter struct {
	r   io.Reader
	bar *progress.Bar
	n   int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.bar.Add(int64(n))
	return n, err
}

func (c *Client) putBlob(ctx context.Context, f api.File, offset int64, body io.Reader) error {
	query := url.Values{"size": {strconv.FormatInt(f.Size, 10)}, "offset": {strconv.FormatInt(offset, 10)}}
	var b api.Blob
	if err := c.do(ctx, &request{method: http.MethodPut, path: "blobs/" + f.SHA256, query: query, body: body, size: f.Size - offset}, &b); err != nil {
		return err
	}
	if !b.Complete {
		return fault.New(fault.Input, "the server took all bytes and says that the file is not complete")
	}
	return nil
}
