// Package journal logs to systemd's journal with fields, so that a fleet's logs can be searched by version, state or server instead of by words:
//
//	MESSAGE=state from=idle to=checking why="asking the update server"
//	PRIORITY=6
//	SYSLOG_IDENTIFIER=semperd
//	SEMPER_FROM=idle
//	SEMPER_TO=checking
//	SEMPER_WHY=asking the update server
//	SEMPER_EVENT=state
//
// An attribute's key becomes SEMPER_KEY; SEMPER_EVENT is the bare message. For instance:
//
//	journalctl SEMPER_EVENT=state SEMPER_TO=rebooting
//	journalctl -u semperd -o json SEMPER_EVENT="rolled back"
//
// The format is journald's native protocol. Where there is no journal the same goes to standard error as text.
package journal

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// maxField bounds one field's value in bytes; a journal entry is no place for more.
const maxField = 16 << 10

// Logger logs to the journal if this process's standard error goes there, and to standard error otherwise.
func Logger(identifier string) *slog.Logger {
	if ok, err := journal.StderrIsJournalStream(); err != nil || !ok {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(New(identifier, journal.Send, os.Stderr))
}

// Send writes one entry to the journal.
type Send func(message string, priority journal.Priority, fields map[string]string) error

// Handler is a slog.Handler.
type Handler struct {
	identifier string
	send       Send
	fallback   io.Writer // takes what the journal refuses
	attrs      []slog.Attr
	prefix     string // of keys, by groups
}

// New returns a handler that sends entries.
func New(identifier string, send Send, fallback io.Writer) *Handler {
	return &Handler{identifier: identifier, send: send, fallback: fallback}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(append([]slog.Attr(nil), h.attrs...), prefixed(h.prefix, attrs)...)
	return &c
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	c := *h
	if name != "" {
		c.prefix += name + "."
	}
	return &c
}

func prefixed(prefix string, attrs []slog.Attr) []slog.Attr {
	if prefix == "" {
		return attrs
	}
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = slog.Attr{Key: prefix + a.Key, Value: a.Value}
	}
	return out
}

// Handle implements slog.Handler.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	attrs := append([]slog.Attr(nil), h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, prefixed(h.prefix, []slog.Attr{a})...)
		return true
	})
	fields := map[string]string{"SYSLOG_IDENTIFIER": h.identifier, "SEMPER_EVENT": clip(r.Message)}
	for _, a := range attrs {
		if name := fieldName(a.Key); name != "" {
			fields[name] = clip(a.Value.Resolve().String())
		}
	}
	line := text(r.Message, attrs)
	if err := h.send(line, priority(r.Level), fields); err != nil {
		_, err = io.WriteString(h.fallback, line+"\n")
		return err
	}
	return nil
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	default:
		return journal.PriInfo
	}
}

// fieldName makes a journal field of a key: letters, digits and underscores only.
func fieldName(key string) string {
	name := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, key)
	if name == "" || len(name) > 50 {
		return ""
	}
	return "SEMPER_" + name
}

// text is the entry as a person reads it, formatted by slog's own text handler.
func text(message string, attrs []slog.Attr) string {
	var b bytes.Buffer
	drop := func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case slog.TimeKey, slog.LevelKey, slog.MessageKey:
			return slog.Attr{}
		}
		return a
	}
	r := slog.Record{Message: message}
	r.AddAttrs(attrs...)
	_ = slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: drop}).Handle(context.Background(), r) // a buffer takes everything
	return strings.TrimSpace(message + " " + strings.TrimSpace(b.String()))
}

func clip(s string) string {
	if len(s) <= maxField {
		return s
	}
	return strings.ToValidUTF8(s[:maxField], "") + "…"
}
