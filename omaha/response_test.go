package omaha

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	goomaha "github.com/flatcar/go-omaha/omaha"

	"github.com/semper-os/semper/fault"
)

var payloadSum = sha256.Sum256([]byte("payload"))

func offer() *UpdateResponse {
	return &UpdateResponse{
		Status: UpdateAvailable, PollInterval: 45 * time.Minute, URLs: []string{"http://a.example/p/", "https://b.example/x?y"},
		Manifest: &Manifest{
			Version: "1.1.0",
			Packages: []Package{
				{Name: "full.crau", SHA1: "AAAA", SHA256: hex.EncodeToString(payloadSum[:]), Size: 7, Required: true},
				{Name: "oem-azure.gz", Size: 1},
			},
			Actions: []Action{
				{Event: "other", SHA256: "ignored"},
				{Event: PostInstall, SHA256: base64.StdEncoding.EncodeToString(payloadSum[:]), DisablePayloadBackoff: true, MaxFailureCountPerURL: 3},
			},
		},
	}
}

func response(u *UpdateResponse) *Response {
	return &Response{
		Server: "semper", ElapsedSeconds: 3661,
		Apps: []AppResponse{{ID: SemperApp, Status: AppOK, Ping: true, UpdateCheck: u, Events: 2}, {ID: "{x}", Status: AppUnknown}},
	}
}

func TestResponseRoundTrip(t *testing.T) {
	for name, u := range map[string]*UpdateResponse{
		"offer": offer(),
		"hold":  {Status: NoUpdate, PollInterval: time.Minute, Reason: `it runs "1.1.0"`},
		"fresh": {Status: NoUpdate, Freshness: `{"document":"e30=","signatures":[]}`},
		"large": {Status: NoUpdate, Freshness: strings.Repeat(`"`, MaxFreshness)},
		"none":  nil,
	} {
		t.Run(name, func(t *testing.T) {
			want := response(u)
			got, err := DecodeResponse(want.Encode())
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("decoded\n%+v (%v), want\n%+v", got, err, want)
			}
		})
	}
}

// TestResponseBytes pins what goes over the wire: Flatcar's client finds its parts by name, and a person reads it with curl.
func TestResponseBytes(t *testing.T) {
	u := offer()
	u.URLs, u.Manifest.Packages, u.Manifest.Actions = u.URLs[:1], u.Manifest.Packages[:1], u.Manifest.Actions[1:]
	u.Manifest.Actions[0].MaxFailureCountPerURL = 0
	res := response(u)
	res.Apps = res.Apps[:1]
	want := `<?xml version="1.0" encoding="UTF-8"?>
<response protocol="3.0" server="semper"><daystart elapsed_seconds="3661"/>` +
		`<app appid="{5e3e2f0a-9d1b-4c58-8f53-7d1f0c6b7a11}" status="ok"><ping status="ok"/><updatecheck status="ok" PollInterval="2700">` +
		`<urls><url codebase="http://a.example/p/"/></urls><manifest version="1.1.0"><packages>` +
		`<package name="full.crau" hash="AAAA" size="7" required="true" hash_sha256="239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5"/>` +
		`</packages><actions><action event="postinstall" sha256="I59Z7VXnN8dxR89VrQwbAwttfudIp0JpUvm4UtWpNeU=" IsDeltaPayload="false" DisablePayloadBackoff="true"/></actions>` +
		`</manifest></updatecheck><event status="ok"/><event status="ok"/></app></response>`
	if got := string(res.Encode()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestGoOmahaReadsResponses(t *testing.T) {
	offered := offer()
	offered.Freshness = `{"document":"e30=","signatures":[]}`
	got, err := goomaha.ParseResponse("text/xml; charset=utf-8", bytes.NewReader(response(offered).Encode()))
	if err != nil {
		t.Fatal(err)
	}
	app := got.GetApp(SemperApp)
	if app == nil || app.Status != goomaha.AppOK || app.Ping == nil || len(app.Events) != 2 || app.UpdateCheck == nil {
		t.Fatalf("app %+v", app)
	}
	u := app.UpdateCheck
	if u.Status != goomaha.UpdateOK || len(u.URLs) != 2 || u.URLs[0].CodeBase != "http://a.example/p/" || len(u.Manifests) != 1 {
		t.Fatalf("update %+v", u)
	}
	m := u.Manifests[0]
	if m.Version != "1.1.0" || len(m.Packages) != 2 || m.Packages[0].Size != 7 || m.Packages[0].SHA256 != hex.EncodeToString(payloadSum[:]) {
		t.Errorf("manifest %+v", m)
	}
	if a := m.Actions[1]; a.Event != "postinstall" || a.SHA256 != base64.StdEncoding.EncodeToString(payloadSum[:]) || !a.DisablePayloadBackoff || a.IsDeltaPayload {
		t.Errorf("action %+v", a)
	}
	if other := got.GetApp("{x}"); other == nil || other.Status != goomaha.AppUnknownID {
		t.Errorf("other application %+v", other)
	}
}

func TestPayload(t *testing.T) {
	got, err := offer().Payload()
	want := Payload{Version: "1.1.0", URLs: []string{"http://a.example/p/full.crau", "https://b.example/x/full.crau?y"}, Size: 7, SHA256: payloadSum}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("payload %+v (%v), want %+v", got, err, want)
	}
	for _, c := range []struct {
		name   string
		change func(*UpdateResponse)
		want   string
	}{
		{"no update", func(u *UpdateResponse) { u.Status = NoUpdate }, "there is none"},
		{"no manifest", func(u *UpdateResponse) { u.Manifest = nil }, "there is none"},
		{"no version", func(u *UpdateResponse) { u.Manifest.Version = "" }, `"" is not a version`},
		{"no package", func(u *UpdateResponse) { u.Manifest.Packages = nil }, "no package"},
		{"no size", func(u *UpdateResponse) { u.Manifest.Packages[0].Size = 0 }, "its size is 0"},
		{"a path for a name", func(u *UpdateResponse) { u.Manifest.Packages[0].Name = "../x" }, "is not a file name"},
		{"the parent for a name", func(u *UpdateResponse) { u.Manifest.Packages[0].Name = ".." }, "is not a file name"},
		{"no action", func(u *UpdateResponse) { u.Manifest.Actions = nil }, "no postinstall action"},
		{"short hash", func(u *UpdateResponse) { u.Manifest.Actions[1].SHA256 = "AAAA" }, "is not the base64 of 32 bytes"},
		{"no URL", func(u *UpdateResponse) { u.URLs = nil }, "it has no URL"},
		{"a file URL", func(u *UpdateResponse) { u.URLs[0] = "file:///etc/" }, "is not an http or https URL"},
		{"a relative URL", func(u *UpdateResponse) { u.URLs[0] = "/p/" }, "is not an http or https URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := offer()
			c.change(u)
			_, err := u.Payload()
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Input {
				t.Errorf("error %v (%v), want one with %q of kind input", err, fault.KindOf(err), c.want)
			}
		})
	}
}

func TestRefusedResponses(t *testing.T) {
	update := func(inside string) string {
		return `<response protocol="3.0"><app appid="a" status="ok"><updatecheck status="ok">` + inside + `</updatecheck></app></response>`
	}
	for _, c := range []struct{ name, body, want string }{
		{"too large", strings.Repeat(" ", MaxResponseSize+1), "more than 262144 bytes"},
		{"another root", `<request protocol="3.0"/>`, "not <response>"},
		{"page of a captive portal", `<html><body>Log in</body></html>`, "not <response>"},
		{"protocol", `<response protocol="2.0"/>`, "not the version spoken here"},
		{"two manifests", update(`<manifest version="1"/><manifest version="2"/>`), "more than 1 <manifest>"},
		{"no size", update(`<manifest version="1"><packages><package name="x"/></packages></manifest>`), "<package size>: missing"},
		{"negative size", update(`<manifest version="1"><packages><package name="x" size="-1"/></packages></manifest>`), "-1 is not between 0"},
		{"too many URLs", update("<urls>" + strings.Repeat(`<url codebase="http://x/"/>`, 17) + "</urls>"), "more than 16 <url>"},
		{"too many packages", update(`<manifest version="1"><packages>` + strings.Repeat(`<package name="x" size="1"/>`, 65) + "</packages></manifest>"), "more than 64 <package>"},
		{"poll interval of a year", strings.Replace(update(""), "<updatecheck", `<updatecheck PollInterval="31536000"`, 1), "is not between 0 and 604800"},
		{"large freshness", strings.Replace(update(""), "<updatecheck", `<updatecheck semper_freshness="`+strings.Repeat("x", MaxFreshness+1)+`"`, 1), "<updatecheck semper_freshness>: longer than 16384 bytes"},
		{"day of 25 hours", `<response protocol="3.0"><daystart elapsed_seconds="90000"/></response>`, "is not between 0 and 86400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := DecodeResponse([]byte(c.body))
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Input {
				t.Errorf("error %v (%v), want one with %q of kind input", err, fault.KindOf(err), c.want)
			}
		})
	}
}

func FuzzDecodeResponse(f *testing.F) {
	f.Add(response(offer()).Encode())
	f.Add(response(&UpdateResponse{Status: NoUpdate, Reason: "x", PollInterval: time.Hour}).Encode())
	f.Add(response(&UpdateResponse{Status: NoUpdate, Freshness: `{"document":"e30="}`}).Encode())
	f.Add([]byte(`<response protocol="3.0" server="nebraska"><daystart elapsed_seconds="0"></daystart><app appid="a" status="ok"><ping status="ok"></ping></app></response>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeResponse(data)
		if err != nil {
			if fault.KindOf(err) != fault.Input {
				t.Fatalf("kind %v of %v", fault.KindOf(err), err)
			}
			return
		}
		for i := range r.Apps {
			if u := r.Apps[i].UpdateCheck; u != nil {
				if p, err := u.Payload(); err == nil && (p.Size <= 0 || len(p.URLs) == 0) {
					t.Fatalf("payload %+v", p)
				}
			}
		}
		again, err := DecodeResponse(r.Encode())
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v came back as %+v (%v)", r, again, err)
		}
	})
}

func TestErrorCodes(t *testing.T) {
	for _, c := range []struct {
		code    ErrorCode
		base    ErrorCode
		text    string
		passing bool
	}{
		{0, 0, "0 success", false},
		{9, 9, "9 transfer", true},
		{10, 10, "10 payload-hash", false},
		{18 | FlagOtherServer, 18, "18 payload-signature", false},
		{34 | FlagOtherServer, 34, "34 response-invalid", true},
		{268435490, 34, "34 response-invalid", true},
		{44, 44, "44 rollback", false},
		{45, 45, "45 code-45", false},
		{-2147483648 + 29, 29, "29 operation-hash", false},
		{1<<31 | 1<<30 | 1<<29 | 1<<28 | 9, 9, "9 transfer", true},
		{2503, 2503, "2503 http-503", true},
		{2503 | FlagOtherServer, 2503, "2503 http-503", true},
		{2000, 2000, "2000 code-2000", false},
		{3000, 3000, "3000 code-3000", false},
		{1 << 40, 1 << 40, "1099511627776 code-1099511627776", false},
		{-1 << 63, -1 << 63, "-9223372036854775808 code--9223372036854775808", false},
	} {
		if c.code.Base() != c.base || c.code.String() != c.text || c.code.Passing() != c.passing {
			t.Errorf("code %d: base %d, %q, passing %v; want %d, %q, %v",
				int64(c.code), int64(c.code.Base()), c.code, c.code.Passing(), int64(c.base), c.text, c.passing)
		}
	}
	passing := map[ErrorCode]bool{
		CodeError: true, CodeRequest: true, CodeCopy: true, CodeSetBootable: true, CodeOpenTarget: true, CodeOpenKernel: true, CodeTransfer: true,
		CodeWrite: true, CodeDownloadState: true, CodeEmptyResponse: true, CodeResponseXML: true, CodeResponseInvalid: true,
		CodeDeferredByPolicy: true, CodeHTTPResponse: true, CodeDeferredByBackoff: true, CodePCRPolicyHTTP: true,
	}
	names := map[string]bool{}
	for i, e := range errorCodes {
		if e.name == "" || e.sentence == "" || names[e.name] {
			t.Errorf("code %d has no name of its own or no sentence: %+v", i, e)
		}
		if code := ErrorCode(i); code.Passing() != passing[code] || code.ByRules() != (code == 35) {
			t.Errorf("code %v: passing %v, by rules %v", code, code.Passing(), code.ByRules())
		}
		names[e.name] = true
	}
	if len(errorCodes) != 45 {
		t.Errorf("%d codes, update_engine has 45", len(errorCodes))
	}
}

func TestNamesMatchGoOmaha(t *testing.T) {
	for i := range 110 {
		theirs := goomaha.EventType(i).String()
		unnamed := theirs == fmt.Sprintf("event %d", i)
		if ours := EventType(i).String(); unnamed != (ours == fmt.Sprintf("event type %d", i)) {
			t.Errorf("event type %d: %q here, %q in go-omaha", i, ours, theirs)
		}
		theirs = goomaha.EventResult(i).String()
		unnamed = theirs == fmt.Sprintf("result %d", i)
		if ours := EventResult(i).String(); unnamed != (ours == fmt.Sprintf("result %d", i)) {
			t.Errorf("event result %d: %q here, %q in go-omaha", i, ours, theirs)
		}
	}
}
