package journal_test

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"

	sd "github.com/coreos/go-systemd/v22/journal"

	"github.com/semper-os/semper/updater/journal"
)

type entry struct {
	message  string
	priority sd.Priority
	fields   map[string]string
}

func TestHandler(t *testing.T) {
	var got []entry
	send := func(m string, p sd.Priority, f map[string]string) error {
		got = append(got, entry{m, p, maps.Clone(f)})
		return nil
	}
	log := slog.New(journal.New("semperd", send, nil))
	log.Debug("not logged")
	log.Info("state", "from", "idle", "why", "asking the server")
	log.With("version", "1.1.0").WithGroup("download").Warn("slow", "bytes", 7)
	log.Error("problem", "error", errors.New("no route"), "strange key!", strings.Repeat("x", 20<<10), strings.Repeat("k", 60), 1)
	if len(got) != 3 {
		t.Fatalf("%d entries: %+v", len(got), got)
	}
	for i, want := range []entry{
		{`state from=idle why="asking the server"`, sd.PriInfo, map[string]string{"SYSLOG_IDENTIFIER": "semperd", "SEMPER_EVENT": "state", "SEMPER_FROM": "idle", "SEMPER_WHY": "asking the server"}},
		{`slow version=1.1.0 download.bytes=7`, sd.PriWarning, map[string]string{"SYSLOG_IDENTIFIER": "semperd", "SEMPER_EVENT": "slow", "SEMPER_VERSION": "1.1.0", "SEMPER_DOWNLOAD_BYTES": "7"}},
	} {
		if got[i].message != want.message || got[i].priority != want.priority || !maps.Equal(got[i].fields, want.fields) {
			t.Errorf("entry %d:\n got %+v\nwant %+v", i, got[i], want)
		}
	}
	f := got[2].fields
	if got[2].priority != sd.PriErr || f["SEMPER_ERROR"] != "no route" || len(f["SEMPER_STRANGE_KEY_"]) > 16<<10+4 || len(f) != 4 {
		t.Errorf("fields %.300v", f)
	}
}

// What the journal does not take is not lost.
func TestFallback(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(journal.New("semperd", func(string, sd.Priority, map[string]string) error { return errors.New("full") }, &b))
	log.Info("started", "version", "1")
	if b.String() != "started version=1\n" {
		t.Errorf("got %q", b.String())
	}
}
