package initramfs

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

const hashText = "1829abf82d760191208077c4acfb9b5ad29da34c54c1e2b70f8137072f9f4fcd"

func TestParseCmdline(t *testing.T) {
	for _, tc := range []struct {
		text   string
		debug  bool
		params map[string]string
	}{
		{"roothash=" + hashText, false, nil},
		{"console=ttyS0,115200n8 roothash=" + hashText + " ro systemd.gpt_auto=no\n", false, map[string]string{"systemd": "gpt_auto=no"}},
		{"semper.debug roothash=" + hashText + " roothash=" + hashText, true, map[string]string{}},
		{`nvme_core.io_timeout=30 nvme-core.multipath=N x.y roothash="` + hashText + `"`, false, map[string]string{"nvme_core": "io_timeout=30 multipath=N", "x": "y"}},
		{"roothash=" + hashText + " -- semper.debug a.b=c", false, nil},
		{`dyndbg="file a.c +p" roothash=` + hashText + ` .x=1 y.=2`, false, nil},
	} {
		c, err := ParseCmdline(tc.text)
		if err != nil {
			t.Errorf("%q: %v", tc.text, err)
			continue
		}
		if c.RootHash.String() != hashText || c.Debug != tc.debug {
			t.Errorf("%q: %+v", tc.text, c)
		}
		if tc.params != nil {
			delete(c.Params, "semper")
			if !maps.Equal(c.Params, tc.params) {
				t.Errorf("%q: params %q", tc.text, c.Params)
			}
		}
	}
}

func TestParseCmdlineRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "no roothash=",
		"root=/dev/vda3 quiet":            "no roothash=",
		"ro -- roothash=" + hashText:      "no roothash=",
		"roothash=":                       "root hash",
		"roothash=abc":                    "root hash",
		"roothash=" + hashText[:63] + "x": "root hash",
		"roothash=" + hashText + " roothash=" + strings.Repeat("0", 64): "two different values",
		strings.Repeat("x", maxCmdline+1):                               "at most 65536",
	} {
		_, err := ParseCmdline(text)
		if err == nil || !strings.Contains(err.Error(), want) || !fault.Is(err, fault.Input) {
			t.Errorf("%.80q: error %v, want one with %q", text, err, want)
		}
	}
}

func TestWords(t *testing.T) {
	for text, want := range map[string][]string{
		"a b\tc\n":     {"a", "b", "c"},
		`a="b c" d`:    {"a=b c", "d"},
		`"a=b c" d`:    {"a=b c", "d"},
		`a="" ""`:      {"a=", ""},
		`a"b`:          {"ab"},
		"  ":           nil,
		`x="un closed`: {"x=un closed"},
		"a  b":         {"a", "b"},
	} {
		if got := words(text); !slices.Equal(got, want) {
			t.Errorf("words(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add("console=ttyS0 roothash=" + hashText + ` ro a.b="c d" -- x`)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCmdline(s)
		if err == nil && !strings.Contains(strings.ToLower(strings.ReplaceAll(s, `"`, "")), c.RootHash.String()) {
			t.Errorf("%q gives root hash %s", s, c.RootHash)
		}
		for m := range c.Params {
			if m == "" || strings.Contains(m, "-") {
				t.Errorf("%q gives module %q", s, m)
			}
		}
	})
}
