package release

import (
	"context"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/semper-os/semper/fault"
)

// Seal hashes and flushes files that were written to Path and are complete, so that this happens while other files are still being made. Commit does it for all
// that was not sealed. A sealed file must not be written to again: what it becomes would not be what the manifest says.
func (w *Writer) Seal(ctx context.Context, names ...string) error {
	root, err := os.OpenRoot(w.dir)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer func() { _ = root.Close() }() // only read from
	group, ctx := errgroup.WithContext(ctx)
	for _, name := range names {
		if err := checkFileName(name); err != nil {
			return err
		}
		// Side by side: the disk writes while a core hashes.
		group.Go(func() error { return flushFile(w.Path(name)) })
		group.Go(func() error {
			f, err := hashFile(ctx, root, name, nil)
			if err != nil {
				return err
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.hashed[name] = f
			return nil
		})
	}
	return group.Wait()
}
