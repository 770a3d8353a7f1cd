package client

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
)

// transport answers requests without a network.
type transport http.HandlerFunc

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	t(w, r)
	return w.Result(), nil
}

func answer(t *testing.T, w http.ResponseWriter, v any) {
	t.Helper()
	if err := json.NewEncoder(w).Encode(v); err != nil {
		t.Error(err)
	}
}

func TestAllPages(t *testing.T) {
	c := NewLocalClient(transport(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("limit") != "1000" || r.Header.Get("Authorization") != "" {
			t.Errorf("%s with %v", r.URL, r.Header)
		}
		next := map[string]string{"": "b", "b": "d"}[q.Get("after")]
		if strings.HasSuffix(r.URL.Path, "/machines") {
			answer(t, w, api.Machines{Machines: []api.Machine{{ID: "m" + q.Get("after")}}, Next: next})
		} else {
			answer(t, w, api.Members{Group: api.Group{Name: "lab", Members: 3}, Machines: []string{"m" + q.Get("after")}, Next: next})
		}
	}))
	machines, err := c.AllMachines(t.Context(), MachinesQuery{})
	if err != nil || len(machines) != 3 || machines[2].ID != "md" {
		t.Errorf("machines %+v, %v", machines, err)
	}
	group, err := c.AllMembers(t.Context(), "lab", GroupQuery{})
	if err != nil || group.Members != 3 || strings.Join(group.Machines, " ") != "m mb md" {
		t.Errorf("group %+v, %v", group, err)
	}
}

func TestPagesWithoutEnd(t *testing.T) {
	c := NewLocalClient(transport(func(w http.ResponseWriter, _ *http.Request) { answer(t, w, api.Machines{Next: "b"}) }))
	if _, err := c.AllMachines(t.Context(), MachinesQuery{}); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), `come to no end after "b"`) {
		t.Errorf("error %v", err)
	}
}

func TestPromote(t *testing.T) {
	var set string
	c := NewLocalClient(transport(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			answer(t, w, api.Channels{Channels: []api.Channel{{Name: "beta", Arch: "arm64"}, {Name: "beta", Arch: "amd64", Version: "1.1.0"}}})
			return
		}
		var body api.SetChannel
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		set = r.URL.Path + " " + body.Version + " " + r.URL.RawQuery
		answer(t, w, api.Channel{Name: "stable", Version: body.Version})
	}))
	if ch, err := c.Promote(t.Context(), "beta", "stable", SetChannelQuery{App: "x"}); err != nil || ch.Version != "1.1.0" || set != "/api/v1/channels/stable 1.1.0 app=x&arch=amd64" {
		t.Errorf("channel %+v by %q, %v", ch, set, err)
	}
	for arch, want := range map[string]string{"arm64": "channel beta has no release for arm64 to promote", "riscv64": `promote: channel "beta" for "riscv64": not found`} {
		if _, err := c.Promote(t.Context(), "beta", "stable", SetChannelQuery{Arch: arch}); !fault.Is(err, fault.Input) || err.Error() != want {
			t.Errorf("%s: error %v", arch, err)
		}
	}
}

func TestLocalErrorsKeepTheirKind(t *testing.T) {
	asked := 0
	c := NewLocalClient(transport(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.WriteHeader(http.StatusInternalServerError)
		answer(t, w, api.Error{Message: "database: disk full", Kind: "io"})
	}))
	if _, err := c.NewToken(t.Context(), api.NewToken{}); !fault.Is(err, fault.IO) || err.Error() != "database: disk full" || asked != 1 {
		t.Errorf("error %v (%v) after %d requests", err, fault.KindOf(err), asked)
	}
}

// Names are parts of addresses, and some would change which one it is.
func TestNamesThatNothingHas(t *testing.T) {
	var asked []string
	c := NewLocalClient(transport(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.EscapedPath())
		answer(t, w, api.Nothing{})
	}))
	for _, name := range []string{"", ".", ".."} {
		if _, err := c.ReleaseReboot(t.Context(), "rack", name, api.Steer{}); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "nothing has the name") {
			t.Errorf("%q: error %v", name, err)
		}
	}
	for _, name := range []string{"../stable", "a/b", "...", "a b", "%2e"} {
		if _, err := c.ReleaseReboot(t.Context(), "rack", name, api.Steer{}); err != nil {
			t.Errorf("%q: error %v", name, err)
		}
	}
	if got := strings.ReplaceAll(strings.Join(asked, " "), "/api/v1/reboots/rack/holders/", ""); got != "..%2Fstable a%2Fb ... a%20b %252e" {
		t.Errorf("asked for %s", got)
	}
}

func TestReadToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for _, c := range []struct {
		content string
		mode    os.FileMode
		want    string // of the error; empty: it is the token
	}{
		{"semper_1_x\n", 0o600, ""},
		{"semper_1_x", 0o640, "that others can read"},
		{"", 0o600, "does not hold a token"},
		{"two words", 0o600, "does not hold a token"},
		{strings.Repeat("a", 2000), 0o600, "does not hold a token"},
	} {
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		token, err := ReadToken(path)
		if c.want == "" && (err != nil || token != "semper_1_x") || c.want != "" && (!fault.Is(err, fault.Input) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%.20q: token %q, error %v", c.content, token, err)
		}
	}
	if _, err := ReadToken(path + ".not"); !fault.Is(err, fault.Input) {
		t.Errorf("no file: %v", err)
	}
}

func TestTokenID(t *testing.T) {
	for text, want := range map[string]string{"0a1b2c3d": "0a1b2c3d", "semper_0a1b2c3d_se_cret": "0a1b2c3d", "semper_": "", "": ""} {
		if got := TokenID(text); got != want {
			t.Errorf("TokenID(%q) = %q, want %q", text, got, want)
		}
	}
}
