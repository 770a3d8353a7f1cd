package omaha

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// FuzzScan: what scan reads, parse reads as the same.
func FuzzScan(f *testing.F) {
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(files) == 0 {
		f.Fatal("no vectors", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range []string{
		`<a/>`, `<a></a >`, `<a b='"'>x</a>`, `<a b="&lt;&amp;&gt;&quot;&apos;"/>`, `<a b="&amp;lt;"/>`, `<a b="&#65;"/>`, `<a xmlns="x"/>`, `<x:a y:b="1"/>`, "<a b=\"\t\"/>", `<a b="1" b="2"/>`,
		`<a><b/></a><c/>`, `<?xml version="1.1"?><a/>`, `<?xml version="1.0"?> <a/>`, ` <?xml version="1.0"?><a/>`, `<a><!-- x --></a>`, `<a b=1/>`, `<a b="é"/>`, "<a b=\"\xff\"/>", "<a b=\"\ufffe\"/>", `<a b="]]>"/>`, "\ufeff<a/>",
		`<a b="1"c="2"/>`, `<a / >`, `<A-1 _b="x"/>`, `<a b="&"/>`, `<a`, `<a>`, `</a>`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := scan(data)
		if !ok {
			return
		}
		want, err := parse(data, math.MaxInt)
		if err != nil {
			t.Fatalf("scan reads what parse refuses: %v", err)
		}
		if !sameElement(got, want) {
			t.Fatalf("scan reads %+v, parse %+v", got, want)
		}
	})
}

func sameElement(a, b *element) bool {
	if a.name != b.name || len(a.attrs) != len(b.attrs) || len(a.children) != len(b.children) {
		return false
	}
	for i := range a.attrs {
		if !reflect.DeepEqual(a.attrs[i], b.attrs[i]) {
			return false
		}
	}
	for i := range a.children {
		if !sameElement(a.children[i], b.children[i]) {
			return false
		}
	}
	return true
}

// The clients' own requests are read without the parser.
func TestScanReadsClients(t *testing.T) {
	files, err := filepath.Glob("testdata/*.request.xml")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := scan(b); !ok {
			t.Errorf("%s is left to the parser", name)
		}
	}
	r := Request{Apps: []AppRequest{{ID: SemperApp, Version: "1.0.0", Track: "stable", MachineID: "m", MachineAlias: `a "quoted" <alias> & more`, Ping: true, UpdateCheck: true}}}
	if _, ok := scan(r.Encode()); !ok {
		t.Errorf("our own request is left to the parser: %s", r.Encode())
	}
}

func BenchmarkDecodeRequest(b *testing.B) {
	data, err := os.ReadFile("testdata/flatcar-1-first-check.request.xml")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("scan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeRequest(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-xml", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parse(data, math.MaxInt); err != nil {
				b.Fatal(err)
			}
		}
	})
}
