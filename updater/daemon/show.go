package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/semper-os/semper/updater/agent"
)

// showPause is the least time between two writings of the files: progress changes several times a second, and nobody reads that often.
const showPause = 5 * time.Second

// Names in the runtime folder.
const (
	metricsFile = "metrics.prom"
	motdFile    = "motd"
)

// show keeps files in step with the agent's reports.
type show struct {
	folder string
	log    *slog.Logger
	latest chan agent.Report // holds at most the newest
	have   map[string]string
}

func newShow(folder string, log *slog.Logger) *show {
	return &show{folder: folder, log: log, latest: make(chan agent.Report, 1), have: map[string]string{}}
}

// put replaces the report that waits to be shown.
func (s *show) put(r agent.Report) {
	for {
		select {
		case s.latest <- r:
			return
		default:
		}
		select {
		case <-s.latest:
		default:
		}
	}
}

func (s *show) run(ctx context.Context) {
	if s.folder == "" {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-s.latest:
			s.write(metricsFile, r.Metrics())
			s.write(motdFile, r.MOTD())
		}
		timer := time.NewTimer(showPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// write replaces a file, so that nobody reads half of it. It is on a tmpfs and need not survive a power cut.
func (s *show) write(name, text string) {
	if s.have[name] == text {
		return
	}
	temp := filepath.Join(s.folder, "."+name)
	err := os.WriteFile(temp, []byte(text), 0o644)
	if err == nil {
		err = os.Chmod(temp, 0o644) // whatever the umask
	}
	if err == nil {
		err = os.Rename(temp, filepath.Join(s.folder, name))
	}
	if err != nil {
		s.log.Warn("show the agent's state", "file", name, "error", err)
		return
	}
	s.have[name] = text
}
