package store

import (
	"context"
	"database/sql"
	"os"
	"time"
)

// The log of an SQLite database is written back to its place beside the writes, and not by whoever writes last: that takes a fraction of a second when many pages changed.
// Only a log that has become too large makes the writer wait, since it begins anew only when nobody writes.
const (
	checkpointEvery = 500 * time.Millisecond
	checkpointFrom  = 16 << 20  // bytes of log that are worth it
	logLimit        = 256 << 20 // bytes of log at which the writer waits
)

// checkpoints writes the log back from time to time until stop is closed.
func checkpoints(db *sql.DB, log string, stop <-chan struct{}) {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if size(log) >= checkpointFrom {
			_, _ = db.ExecContext(context.Background(), "PRAGMA wal_checkpoint(PASSIVE)") // what fails is tried again
		}
	}
}

// shorten has the log begin anew if it has become too large. Nobody may be writing.
func (s *sqlite) shorten(ctx context.Context) {
	if size(s.log) < logLimit {
		return
	}
	_, _ = s.conn.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)") // what readers keep from it is tried again after the next write
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}
