package omaha

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	goomaha "github.com/flatcar/go-omaha/omaha"

	"github.com/semper-os/semper/fault"
)

// flatcarApp is what every captured request says of itself.
func flatcarApp() AppRequest {
	return AppRequest{
		ID: "{e96281a6-d1af-4bde-9a0a-97b76e56dc57}", Version: "1.0.0", Track: "stable", BootID: "{d8282fd5-98be-40c3-9a6d-aeef879181c8}",
		OEM: "qemu", OEMVersion: "1.2.3", AlephVersion: "1.0.0", MachineID: "0123456789abcdef0123456789abcdef", MachineAlias: "lab-1",
		Lang: "en-US", Board: "amd64-usr",
	}
}

func flatcarRequest(check bool, e Event) *Request {
	app := flatcarApp()
	app.Ping, app.UpdateCheck, app.Events = check, check, []Event{e}
	return &Request{
		Version: "update_engine-0.4.10", UpdaterVersion: "update_engine-0.4.10", InstallSource: InstallOnDemand, IsMachine: true,
		OS: OS{Version: "Chateau", Platform: "CoreOS", ServicePack: "1.0.0_x86_64"}, Apps: []AppRequest{app},
	}
}

func readVector(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".request.xml"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestCapturedRequests(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range []struct {
		file     string
		check    bool
		event    Event
		sentence string
		idle     bool
	}{
		{"flatcar-1-first-check", true, Event{Type: 3, Result: 2, PreviousVersion: "0.0.0.0"}, "checked in", true},
		{"flatcar-2-download-started", false, Event{Type: 13, Result: 1}, "started to download the update", false},
		{"flatcar-3-download-finished", false, Event{Type: 14, Result: 1}, "finished the download of the update", false},
		{"flatcar-4-applied", false, Event{Type: 3, Result: 1}, "installed the update; the reboot is still to come", false},
		{"flatcar-later-check-empty-previousversion", true, Event{Type: 3, Result: 2}, "checked in", true},
		{
			"flatcar-rolled-back", true,
			Event{Type: 3, Result: 0, ErrorCode: 44},
			"the update failed: the new version was booted, and the machine went back to the old one (code 44 rollback)", false,
		},
		{
			"flatcar-failed-bad-signature", false,
			Event{Type: 3, Result: 0, ErrorCode: 18 | FlagOtherServer},
			"the update failed: the payload is not signed by a trusted key (code 18 payload-signature)", false,
		},
		{
			"flatcar-failed-bad-blob-hash", false,
			Event{Type: 3, Result: 0, ErrorCode: 29 | FlagOtherServer},
			"the update failed: an operation's data has another hash than the manifest says (code 29 operation-hash)", false,
		},
	} {
		t.Run(c.file, func(t *testing.T) {
			seen[c.file+".request.xml"] = true
			want := flatcarRequest(c.check, c.event)
			got, err := DecodeRequest(readVector(t, c.file))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("decoded\n%+v, want\n%+v", got, want)
			}
			again, err := DecodeRequest(got.Encode())
			if err != nil || !reflect.DeepEqual(again, want) {
				t.Errorf("encoded and decoded\n%+v (%v), want\n%+v", again, err, want)
			}
			e := &got.Apps[0].Events[0]
			if s := e.Sentence(); s != c.sentence {
				t.Errorf("sentence %q, want %q", s, c.sentence)
			}
			if e.Idle() != c.idle || e.Completion() {
				t.Errorf("idle %v, completion %v; want %v, false", e.Idle(), e.Completion(), c.idle)
			}
			if arch := got.Arch(&got.Apps[0]); arch != "amd64" {
				t.Errorf("architecture %q, want amd64", arch)
			}
		})
	}
	files, err := filepath.Glob("testdata/*.request.xml")
	if err != nil || len(files) != len(seen) {
		t.Errorf("testdata has %d requests, the table %d (%v)", len(files), len(seen), err)
	}
}

func TestRequestWithEverything(t *testing.T) {
	app := flatcarApp()
	app.HardwareClass, app.DeltaOK, app.Ping, app.UpdateCheck = "metal & <more>", true, true, true
	app.MachineAlias = `Büro "Süd" 'x'`
	app.Events = []Event{
		DownloadStarted("1.1.0"), DownloadFinished("1.1.0"), Installed("1.1.0"), Completed("1.0.0"),
		Failed("1.2.0", CodeRootVerification, "root hash is ab, the manifest says cd"), RolledBack("1.2.0", "check web failed"),
		{Type: 3, Result: 0, ErrorCode: -2147483619},
	}
	second := flatcarApp()
	second.ID = SemperApp
	want := &Request{
		Version: "semperd-1.0.0", UpdaterVersion: "semperd-1.0.0", InstallSource: InstallScheduler, IsMachine: true,
		UserID: "u", SessionID: "s", RequestID: "r", OS: OS{Platform: "Semper", Version: "1", ServicePack: "2", Arch: "x64"},
		Apps: []AppRequest{app, second},
	}
	got, err := DecodeRequest(want.Encode())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("decoded\n%+v (%v), want\n%+v", got, err, want)
	}
	foreign, err := goomaha.ParseRequest("text/xml; charset=utf-8", strings.NewReader(string(want.Encode())))
	if err != nil {
		t.Fatal("go-omaha refuses the request:", err)
	}
	if a := foreign.Apps[0]; a.MachineAlias != app.MachineAlias || a.ID != app.ID || len(a.Events) != len(app.Events) ||
		a.Events[6].ErrorCode != -2147483619 || a.Events[5].NextVersion != "1.2.0" || a.UpdateCheck == nil || a.Ping.Active != 1 {
		t.Errorf("go-omaha read %+v", a)
	}
}

func TestReasonIsMadeFit(t *testing.T) {
	for _, c := range []struct{ name, reason, want string }{
		{"lines become one", "first\nsecond\tthird\u00a0fourth", "first second third fourth"},
		{"control characters and broken bytes are marked", "a\x1b[31mb\xffc\u202ed", "a\ufffd[31mb\ufffdc\ufffdd"},
		{"long text is cut at a character", strings.Repeat("ü", 600), strings.Repeat("ü", 510) + "…"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := flatcarRequest(false, Failed("1.1.0", CodeError, c.reason))
			got, err := DecodeRequest(r.Encode())
			if err != nil {
				t.Fatal(err)
			}
			if reason := got.Apps[0].Events[0].Reason; reason != c.want {
				t.Errorf("reason %q, want %q", reason, c.want)
			}
		})
	}
}

func TestArch(t *testing.T) {
	for _, c := range []struct{ board, os, sp, want string }{
		{"amd64-usr", "", "", "amd64"},
		{"arm64-usr", "", "1.0.0_x86_64", "arm64"},
		{"", "x64", "", "amd64"},
		{"", "", "1.0.0_aarch64", "arm64"},
		{"", "", "4081.2.0_x86_64", "amd64"},
		{"riscv64-usr", "", "", ""},
		{"", "", "", ""},
	} {
		r := &Request{OS: OS{Arch: c.os, ServicePack: c.sp}}
		if got := r.Arch(&AppRequest{Board: c.board}); got != c.want {
			t.Errorf("board %q, os %q, sp %q: %q, want %q", c.board, c.os, c.sp, got, c.want)
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	app := func(inside string) string {
		return `<request protocol="3.0"><app appid="a" version="1">` + inside + `</app></request>`
	}
	for _, c := range []struct{ name, body, want string }{
		{"empty", "", "the document is empty"},
		{"only a declaration", `<?xml version="1.0"?>`, "the document is empty"},
		{"not XML", "hello", "text outside the root element"},
		{"cut off", `<request protocol="3.0"><app`, "unexpected EOF"},
		{"end tags missing", `<request protocol="3.0"><app appid="a">`, "unexpected EOF"},
		{"document type", `<!DOCTYPE x [<!ENTITY a "b">]>` + app(""), "a document type declaration is not accepted"},
		{"unknown entity", app(`<event eventtype="3" eventresult="0" reason="&a;"/>`), "invalid character entity"},
		{"processing instruction", `<?php x?>` + app(""), "a processing instruction is not accepted"},
		{"second declaration", `<?xml version="1.0"?><?xml version="1.0"?>` + app(""), "a processing instruction is not accepted"},
		{"other encoding", `<?xml version="1.0" encoding="utf-16"?>` + app(""), "encoding \"utf-16\""},
		{"two roots", app("") + app(""), "a second root element"},
		{"text after the root", app("") + "x", "text outside the root element"},
		{"another root", `<response protocol="3.0"/>`, "the root element is <response>, not <request>"},
		{"no protocol", `<request><app appid="a"/></request>`, `<request protocol>: "" is not the version spoken here, 3.0`},
		{"protocol 3.1", `<request protocol="3.1"><app appid="a"/></request>`, `<request protocol>: "3.1" is not`},
		{"no app", `<request protocol="3.0"/>`, "there is no <app>"},
		{"attribute twice", `<request protocol="3.0" protocol="3.0"><app/></request>`, "attribute protocol is given twice"},
		{"too deep", strings.Repeat("<a>", 17), "nested more than 16 deep"},
		{"too many elements", app(strings.Repeat("<x/>", MaxElements)), "more than 4096 elements"},
		{"too many apps", `<request protocol="3.0">` + strings.Repeat(`<app appid="a"/>`, 17) + `</request>`, "<request> has more than 16 <app>"},
		{"too many events", app(strings.Repeat(`<event eventtype="3" eventresult="1"/>`, 65)), "<app> has more than 64 <event>"},
		{"too many attributes", "<request" + manyAttributes(65) + "/>", "more than 64 attributes"},
		{"two checks", app(`<updatecheck/><updatecheck/>`), "<app> has more than 1 <updatecheck>"},
		{"long attribute", `<request protocol="3.0"><app appid="` + strings.Repeat("a", 257) + `"/></request>`, "<app appid>: longer than 256 bytes"},
		{"long reason", app(`<event eventtype="3" eventresult="0" reason="` + strings.Repeat("a", 1025) + `"/>`), "<event reason>: longer than 1024 bytes"},
		{"terminal escape", app(`<event eventtype="3" eventresult="0" nextversion="` + "\u009b31m" + `"/>`), `holds '\u009b', which cannot be printed`},
		{"text direction", `<request protocol="3.0"><app machinealias="` + "a\u202eb" + `"/></request>`, `holds '\u202e', which cannot be printed`},
		{"no event type", app(`<event eventresult="0"/>`), "<event eventtype>: missing"},
		{"no event result", app(`<event eventtype="3"/>`), "<event eventresult>: missing"},
		{"event type is a word", app(`<event eventtype="three" eventresult="0"/>`), `<event eventtype>: "three" is not a whole number`},
		{"negative event type", app(`<event eventtype="-1" eventresult="0"/>`), "-1 is not between 0 and"},
		{"error code beyond 64 bits", app(`<event eventtype="3" eventresult="0" errorcode="9223372036854775808"/>`), "is not a whole number of 64 bits"},
		{"delta_okay is a word", `<request protocol="3.0"><app delta_okay="maybe"/></request>`, `"maybe" is neither true nor false`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := DecodeRequest([]byte(c.body))
			if err == nil {
				t.Fatalf("accepted as %+v", r)
			}
			if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "omaha request: ") {
				t.Errorf("error %q, want it to hold %q", err, c.want)
			}
			if fault.KindOf(err) != fault.Input {
				t.Errorf("kind %v, want input", fault.KindOf(err))
			}
		})
	}
}

func manyAttributes(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(" a" + strings.Repeat("a", i) + `="1"`)
	}
	return b.String()
}

func TestUnknownPartsAreSkipped(t *testing.T) {
	body := `<?xml version="1.0" encoding="UTF-8"?><!-- c --><request protocol="3.0" hw="x" xmlns:n="urn:n"><hw sse="1"/>
		<app appid="a" n:appid="b" cohort="c"><data name="x"><y/></data><n:event eventtype="9"/>text<ping active="1" r="5"/></app></request>`
	r, err := DecodeRequest([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	want := []AppRequest{{ID: "a", Ping: true}}
	if !reflect.DeepEqual(r.Apps, want) {
		t.Errorf("apps %+v, want %+v", r.Apps, want)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	files, err := filepath.Glob("testdata/*.request.xml")
	if err != nil || len(files) == 0 {
		f.Fatal("no vectors", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(flatcarRequest(true, Failed("1.1.0", CodeRollback, "because")).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRequest(data)
		if err != nil {
			if fault.KindOf(err) != fault.Input {
				t.Fatalf("kind %v of %v", fault.KindOf(err), err)
			}
			return
		}
		for i := range r.Apps {
			for j := range r.Apps[i].Events {
				_ = r.Apps[i].Events[j].Sentence()
			}
		}
		again, err := DecodeRequest(r.Encode())
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v came back as %+v (%v)", r, again, err)
		}
	})
}
