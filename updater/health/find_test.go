package health

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
)

const (
	image   = "usr/lib/semper/health.d/"
	machine = "etc/semper/health.d/"
)

// line says what a check is, in one line.
func line(root string, c Check) string {
	s := c.Name + ": " + string(c.Kind)
	switch c.Kind {
	case Exec:
		s += " " + strings.ReplaceAll(strings.Join(c.Argv, " "), root+"/", "")
	case Unit:
		s += " " + c.Unit + " " + string(c.State)
	case Builtin:
		s += " " + c.Builtin
	case Broken:
		return s + " " + strings.ReplaceAll(c.Err.Error(), root+"/", "")
	}
	if !c.Required {
		s += " advisory"
	}
	if c.Timeout != 0 {
		s += " timeout " + c.Timeout.String()
	}
	if c.Grace != 0 {
		s += fmt.Sprintf(" grace %s/%s", c.Grace, c.Retry)
	}
	return s
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"nothing", nil, nil},
		{
			"order, and what is passed over",
			map[string]string{image + "20-b": "#!", image + "10-a.toml": `builtin = "agent"`, machine + "15-c": "#!", machine + ".git": "", machine + "15-c~": "", machine + ".x.toml": "?"},
			[]string{"10-a: builtin agent", "15-c: exec etc/semper/health.d/15-c", "20-b: exec usr/lib/semper/health.d/20-b"},
		},
		{"the machine's executable replaces the image's", map[string]string{image + "a": "#!", machine + "a": "#!"}, []string{"a: exec etc/semper/health.d/a"}},
		{"a link to nothing is a check that fails", map[string]string{machine + "a": "->/nonexistent"}, []string{"a: exec etc/semper/health.d/a"}},
		{"masked executable", map[string]string{image + "a": "#!", machine + "a": "->/dev/null"}, nil},
		{"masked definition", map[string]string{image + "a.toml": `builtin = "agent"`, machine + "a": "->/dev/null"}, nil},
		{"masked definition by its file's name", map[string]string{image + "a.toml": `builtin = "agent"`, machine + "a.toml": "->/dev/null"}, nil},
		{"masked with its options", map[string]string{image + "a": "#!", image + "a.toml": `grace = "1m"`, machine + "a": "->/dev/null"}, nil},
		{"masked options", map[string]string{image + "a": "#!", image + "a.toml": `required = false`, machine + "a.toml": "->/dev/null"}, []string{"a: exec usr/lib/semper/health.d/a"}},
		{
			"masked, and another check under the same name",
			map[string]string{image + "a": "#!", machine + "a": "->/dev/null", machine + "a.toml": `unit = "x.service"`},
			[]string{"a: unit x.service active"},
		},
		{
			"options beside an executable",
			map[string]string{image + "a": "#!", image + "a.toml": "required = false\ntimeout = \"10m\"\ngrace = \"5m\"\nretry = \"1m\""},
			[]string{"a: exec usr/lib/semper/health.d/a advisory timeout 10m0s grace 5m0s/1m0s"},
		},
		{
			"the machine's options for the image's executable",
			map[string]string{image + "a": "#!", machine + "a.toml": `grace = "5m"`},
			[]string{"a: exec usr/lib/semper/health.d/a grace 5m0s/10s"},
		},
		{
			"the machine's options over the image's, key by key",
			map[string]string{image + "a.toml": "builtin = \"agent\"\ngrace = \"5m\"\nretry = \"3s\"", machine + "a.toml": "required = false\ngrace = \"1m\""},
			[]string{"a: builtin agent advisory grace 1m0s/3s"},
		},
		{
			"the machine's executable instead of the image's definition",
			map[string]string{image + "a.toml": "builtin = \"agent\"\ngrace = \"5m\"", machine + "a": "#!"},
			[]string{"a: exec etc/semper/health.d/a"},
		},
		{
			"the machine's executable under the image's options",
			map[string]string{image + "a": "#!", image + "a.toml": `grace = "5m"`, machine + "a": "#!"},
			[]string{"a: exec etc/semper/health.d/a grace 5m0s/10s"},
		},
		{
			"the machine's definition instead of the image's executable",
			map[string]string{image + "a": "#!", machine + "a.toml": `exec = ["/bin/x", "-y"]`},
			[]string{"a: exec /bin/x -y"},
		},
		{
			"the machine's definition instead of the image's",
			map[string]string{image + "a.toml": "builtin = \"agent\"\ngrace = \"5m\"", machine + "a.toml": `builtin = "network"`},
			[]string{"a: builtin network"},
		},
		{
			"two that say what to check",
			map[string]string{image + "a": "#!", image + "a.toml": `builtin = "agent"`},
			[]string{"a: broken usr/lib/semper/health.d/a.toml: it says what to check, and so does usr/lib/semper/health.d/a; keep one of them"},
		},
		{
			"options for nothing",
			map[string]string{machine + "a.toml": `required = false`},
			[]string{"a: broken etc/semper/health.d/a.toml: nothing says what to check: want one of unit, exec and builtin, or an executable a"},
		},
		{
			"broken, and required for it",
			map[string]string{image + "a": "#!", machine + "a.toml": "required = false\ngrase = \"1m\""},
			[]string{`a: broken etc/semper/health.d/a.toml:2: unknown key "grase", did you mean "grace"?`},
		},
		{
			"the image's broken file, repaired by the machine's executable",
			map[string]string{image + "a.toml": "?", machine + "a": "#!"},
			[]string{"a: exec etc/semper/health.d/a"},
		},
		{"a link of a definition to nothing", map[string]string{machine + "a.toml": "->/nonexistent"}, []string{"a: broken read health check: open etc/semper/health.d/a.toml: no such file or directory"}},
		{
			"the setting decides over the server",
			map[string]string{image + "a.toml": `builtin = "server"`, machine + "a.toml": `required = true`},
			[]string{`a: broken etc/semper/health.d/a.toml: required: for the builtin "server" the machine's settings decide that, not this file`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := place(t, c.files)
			var got []string
			for _, check := range find(t, root) {
				got = append(got, line(root, check))
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
			}
		})
	}
}

func TestNotAFile(t *testing.T) {
	root := place(t, map[string]string{machine + "a.toml/x": "a folder"})
	if c := find(t, root)[0]; c.Kind != Broken || c.Err.Error() != filepath.Join(root, machine, "a.toml")+": a health check must be a regular file" {
		t.Errorf("%+v", c)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`unit = "podman.socket"`, "x: unit podman.socket active"},
		{"unit = \"a@b.service\"\nstate = \"exited-ok\"\nrequired = false", "x: unit a@b.service exited-ok advisory"},
		{`exec = ["/usr/bin/curl", "-f", ""]`, "x: exec /usr/bin/curl -f "},
		{`builtin = "failed-units"`, "x: builtin failed-units"},
		{"builtin = \"network\"\ngrace = \"15m\"\nretry = \"5m\"\ntimeout = \"1s\"", "x: builtin network timeout 1s grace 15m0s/5m0s"},
		{"grace = \"0s\"", "x: "},

		{`unit = "podman"`, `f.toml: unit: "podman" is not a unit's name (example: "podman.socket")`},
		{`unit = "-x; y.service"`, `f.toml: unit: "-x; y.service" has a character that no unit's name has`},
		{`unit = ".service"`, `f.toml: unit: ".service" is not a unit's name (example: "podman.socket")`},
		{"unit = \"a.service\"\nstate = \"up\"", `f.toml: unknown state "up" (want "active" or "exited-ok")`},
		{"unit = \"a.socket\"\nstate = \"exited-ok\"", `f.toml: state "exited-ok" is for services, which a.socket is not`},
		{`state = "active"`, `f.toml: state belongs to unit, which is missing`},
		{`exec = []`, `f.toml: exec has 0 words, 1 to 64 are allowed`},
		{`exec = ["curl"]`, `f.toml: exec: "curl" is not an absolute path`},
		{`exec = "/bin/true"`, `f.toml:1: exec: want a list of strings`},
		{"exec = [\"/bin/\\u0000\"]", `f.toml: exec: a word has at most 4096 bytes and no NUL`},
		{`builtin = "failed-unit"`, `f.toml: unknown builtin "failed-unit", did you mean "failed-units"?`},
		{`builtin = "coffee"`, `f.toml: unknown builtin "coffee" (there are failed-units, network, agent, server)`},
		{"builtin = \"agent\"\nunit = \"a.service\"", `f.toml: more than one of unit, exec and builtin: make a file for each`},
		{"\n\ntimout = \"1m\"", `f.toml:3: unknown key "timout", did you mean "timeout"?`},
		{"[unit]\nname = \"x\"", `f.toml:1: unit: want a unit's name, as a string`},
		{`colour = "red"`, `f.toml:1: unknown key "colour" (keys are unit, state, exec, builtin, required, timeout, grace, retry)`},
		{`required = "yes"`, `f.toml:1: required: want true or false`},
		{`timeout = "11m"`, `f.toml: timeout must be from 1s to 10m0s, it is 11m0s`},
		{`timeout = "0s"`, `f.toml: timeout must be from 1s to 10m0s, it is 0s`},
		{`timeout = 5`, `f.toml: "5" is not a duration in quotes (examples: "30s", "5m", "1m30s")`},
		{`grace = "16m"`, `f.toml: grace must be from 0s to 15m0s, it is 16m0s`},
		{`grace = "-1s"`, `f.toml: grace must be from 0s to 15m0s, it is -1s`},
		{`retry = "10ms"`, `f.toml: retry must be from 1s to 5m0s, it is 10ms`},
		{`grace = "soon"`, `f.toml:1: grace: "soon" is not a duration in quotes (examples: "30s", "5m", "1m30s")`},
		{`this is no TOML`, ``},
		{strings.Repeat("#", maxFileBytes+1), `f.toml: more than 65536 bytes`},
	} {
		f, err := parse("f.toml", []byte(c.text))
		if err != nil {
			if !fault.Is(err, fault.Input) || c.want != "" && err.Error() != c.want || !strings.HasPrefix(err.Error(), "f.toml:") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%.60q: %v\nwant %s", c.text, err, c.want)
			}
			continue
		}
		f.check.Name = "x"
		if got := line("/no/root", f.check); got != c.want {
			t.Errorf("%.60q: %s\nwant %s", c.text, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", `unit = "podman.socket"`, "exec = [\"/bin/x\"]\ngrace = \"5m\"\nretry = \"1s\"", "builtin = \"server\"\nrequired = true", "[x]\ny.z = 1", "grace = 1979-05-27"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parse("f.toml", data)
		if err != nil {
			if !fault.Is(err, fault.Input) {
				t.Errorf("%q: kind of %v", data, err)
			}
			return
		}
		c := got.check
		switch c.Kind {
		case "":
		case Exec:
			if len(c.Argv) == 0 || !filepath.IsAbs(c.Argv[0]) {
				t.Errorf("%q: runs %q", data, c.Argv)
			}
		case Unit:
			if checkUnitName(c.Unit) != nil {
				t.Errorf("%q: unit %q", data, c.Unit)
			}
		case Builtin:
		default:
			t.Errorf("%q: kind %q", data, c.Kind)
		}
		if c.Timeout < 0 || c.Timeout > maxTimeout || c.Grace < 0 || c.Grace > maxGrace || c.Retry < time.Second || c.Retry > maxRetry {
			t.Errorf("%q: times %+v", data, c)
		}
	})
}
