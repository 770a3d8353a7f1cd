package store

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// The log of an SQLite database is written back to its place beside the writes, and not by whoever writes last: that takes a fraction of a second when many pages changed.
// Only a log that has become too long makes the writer wait, since it begins anew only when nobody writes; and then there is little left to write back.
const (
	checkpointEvery = 500 * time.Millisecond
	checkpointFrom  = 4 << 10  // frames of log, of 4 KiB each, that are worth it
	logLimit        = 32 << 10 // frames at which the writer waits; the more there are, the longer it takes to find a page
)

// checkpoints writes the log back from time to time until stop is closed. What fails is tried again.
func (s *sqlite) checkpoints() {
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		log, back, err := s.checkpoint("NOOP")
		if err != nil || log-back < checkpointFrom {
			continue
		}
		if log, _, err = s.checkpoint("PASSIVE"); err != nil || log < logLimit {
			continue
		}
		// SQLite syncs the database where it comes to the log's end, and has the writer wait for it. So what is back by now is synced here, by way of the log: whoever closes a second
		// file of the database's loses this process's locks on it. What fails is tried again there.
		_ = unix.Syncfs(int(s.log.Fd()))
		if _, _, err = s.checkpoint("PASSIVE"); err == nil {
			s.long.Store(true)
		}
	}
}

// checkpoint returns how many frames the log has, and how many of them are back in their place.
func (s *sqlite) checkpoint(mode string) (log, back int64, err error) {
	var busy int64
	err = s.read.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &log, &back)
	return log, back, err
}

// shorten has the log begin anew if it has become too long. Nobody may be writing; who still reads an older part of it is not waited for, and it is tried again later.
func (s *sqlite) shorten(ctx context.Context) {
	if !s.long.Swap(false) {
		return
	}
	for _, q := range []string{"PRAGMA busy_timeout = 0", "PRAGMA wal_checkpoint(RESTART)", busyTimeout} {
		_, _ = s.conn.ExecContext(ctx, q)
	}
}
