package omaha

import (
	"bytes"
	"encoding/xml"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Encode returns r as a document. Reasons are made fit to be sent: one line, cut to MaxReason bytes.
func (r *Request) Encode() []byte {
	var w writer
	w.header()
	w.open("request", "protocol", Protocol, "version", r.Version, "updaterversion", r.UpdaterVersion, "installsource", r.InstallSource,
		"ismachine", ifSet(r.IsMachine, "1"), "userid", r.UserID, "sessionid", r.SessionID, "requestid", r.RequestID)
	if r.OS != (OS{}) {
		w.empty("os", "version", r.OS.Version, "platform", r.OS.Platform, "sp", r.OS.ServicePack, "arch", r.OS.Arch)
	}
	for i := range r.Apps {
		r.Apps[i].encode(&w)
	}
	w.close("request")
	return w.buf
}

func (app *AppRequest) encode(w *writer) {
	w.open("app", "appid", app.ID, "version", app.Version, "track", app.Track, "bootid", app.BootID, "oem", app.OEM,
		"oemversion", app.OEMVersion, "alephversion", app.AlephVersion, "machineid", app.MachineID, "machinealias", app.MachineAlias,
		"lang", app.Lang, "board", app.Board, "hardware_class", app.HardwareClass, "delta_okay", strconv.FormatBool(app.DeltaOK))
	if app.Ping {
		w.empty("ping", "active", "1")
	}
	if app.UpdateCheck {
		w.empty("updatecheck")
	}
	for _, e := range app.Events {
		w.empty("event", "eventtype", strconv.Itoa(int(e.Type)), "eventresult", strconv.Itoa(int(e.Result)),
			"errorcode", ifSet(e.ErrorCode != 0, strconv.FormatInt(int64(e.ErrorCode), 10)),
			"previousversion", e.PreviousVersion, "nextversion", e.NextVersion, "reason", cleanReason(e.Reason))
	}
	w.close("app")
}

// Encode returns r as a document, in the order in which Flatcar's client and go-omaha expect its parts.
func (r *Response) Encode() []byte {
	var w writer
	w.header()
	w.open("response", "protocol", Protocol, "server", r.Server)
	w.empty("daystart", "elapsed_seconds", strconv.Itoa(r.ElapsedSeconds))
	for i := range r.Apps {
		r.Apps[i].encode(&w)
	}
	w.close("response")
	return w.buf
}

func (app *AppResponse) encode(w *writer) {
	w.open("app", "appid", app.ID, "status", string(app.Status))
	if app.Ping {
		w.empty("ping", "status", "ok")
	}
	if app.UpdateCheck != nil {
		app.UpdateCheck.encode(w)
	}
	for range app.Events {
		w.empty("event", "status", "ok")
	}
	w.close("app")
}

func (u *UpdateResponse) encode(w *writer) {
	seconds := int64(u.PollInterval / time.Second)
	w.open("updatecheck", "status", string(u.Status), "PollInterval", ifSet(seconds > 0, strconv.FormatInt(seconds, 10)),
		"reason", cleanReason(u.Reason), "semper_freshness", u.Freshness)
	if len(u.URLs) > 0 {
		w.open("urls")
		for _, codebase := range u.URLs {
			w.empty("url", "codebase", codebase)
		}
		w.close("urls")
	}
	if m := u.Manifest; m != nil {
		w.open("manifest", "version", m.Version)
		w.open("packages")
		for _, p := range m.Packages {
			w.empty("package", "name", p.Name, "hash", p.SHA1, "size", strconv.FormatInt(p.Size, 10),
				"required", strconv.FormatBool(p.Required), "hash_sha256", p.SHA256)
		}
		w.close("packages")
		w.open("actions")
		for _, a := range m.Actions {
			w.empty("action", "event", a.Event, "sha256", a.SHA256, "IsDeltaPayload", strconv.FormatBool(a.IsDelta),
				"DisablePayloadBackoff", strconv.FormatBool(a.DisablePayloadBackoff),
				"MaxFailureCountPerUrl", ifSet(a.MaxFailureCountPerURL > 0, strconv.Itoa(a.MaxFailureCountPerURL)))
		}
		w.close("actions")
		w.close("manifest")
	}
	w.close("updatecheck")
}

// cleanReason makes any text acceptable to the other side's decoder, so that a strange error message never costs the report itself.
func cleanReason(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return utf8.RuneError
		}
		return r
	}, s)
	if len(s) > MaxReason {
		s = clip(s, MaxReason-len("…"))
	}
	return s
}

func ifSet(set bool, s string) string {
	if !set {
		return ""
	}
	return s
}

// writer writes elements by hand, because encoding/xml neither leaves out what is empty in one place and not in another,
// nor promises an order.
type writer struct{ buf []byte }

// usualSize is what most documents have less than.
const usualSize = 1 << 10

func (w *writer) header() { w.buf = append(make([]byte, 0, usualSize), xml.Header...) }

// open writes a start tag. Attributes are pairs of name and value; an empty value leaves the attribute out.
func (w *writer) open(name string, attrs ...string) {
	w.tag(name, attrs)
	w.buf = append(w.buf, '>')
}

func (w *writer) empty(name string, attrs ...string) {
	w.tag(name, attrs)
	w.buf = append(w.buf, "/>"...)
}

func (w *writer) tag(name string, attrs []string) {
	w.buf = append(append(w.buf, '<'), name...)
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i+1] == "" {
			continue
		}
		w.buf = append(append(append(w.buf, ' '), attrs[i]...), `="`...)
		w.value(attrs[i+1])
		w.buf = append(w.buf, '"')
	}
}

// value writes an attribute's value.
func (w *writer) value(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || strings.IndexByte(`"'&<>`, c) >= 0 { // not as it is
			var escaped bytes.Buffer
			_ = xml.EscapeText(&escaped, []byte(s)) // a bytes.Buffer does not fail
			w.buf = append(w.buf, escaped.Bytes()...)
			return
		}
	}
	w.buf = append(w.buf, s...)
}

func (w *writer) close(name string) { w.buf = append(append(append(w.buf, "</"...), name...), '>') }
