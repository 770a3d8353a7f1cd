package bus

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestFlatcarIntrospection(t *testing.T) {
	b := startBroker(t, "root")
	b.serve(newAgent())
	type arg struct {
		Name      string `xml:"name,attr"`
		Type      string `xml:"type,attr"`
		Direction string `xml:"direction,attr"`
	}
	type member struct {
		Name string `xml:"name,attr"`
		Args []arg  `xml:"arg"`
	}
	var node struct {
		Interfaces []struct {
			Name    string   `xml:"name,attr"`
			Methods []member `xml:"method"`
			Signals []member `xml:"signal"`
		} `xml:"interface"`
		Nodes []struct {
			Name string `xml:"name,attr"`
		} `xml:"node"`
	}
	var text string
	if err := b.client("root").Object("com.coreos.update1", "/com/coreos/update1").Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&text); err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal([]byte(text), &node); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range node.Interfaces {
		if i.Name != "com.coreos.update1.Manager" {
			continue
		}
		for _, m := range i.Methods {
			got = append(got, fmt.Sprintf("method %s %v", m.Name, m.Args))
		}
		for _, m := range i.Signals {
			got = append(got, fmt.Sprintf("signal %s %v", m.Name, m.Args))
		}
	}
	want := []string{
		"method AttemptUpdate []", "method ResetStatus []",
		"method GetStatus [{last_checked_time x out} {progress d out} {current_operation s out} {new_version s out} {new_size x out}]",
		"signal StatusUpdate [{last_checked_time x } {progress d } {current_operation s } {new_version s } {new_size x }]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(node.Nodes) != 1 || node.Nodes[0].Name != "Manager" {
		t.Errorf("children %v", node.Nodes)
	}
}

// Tools of others read the same.
func TestOutsideTools(t *testing.T) {
	b := startBroker(t, "root")
	s := b.serve(newAgent())
	s.Publish(Status{Version: "1.0.0", State: Pending, Reason: "version 1.1.0 is installed", LastCheck: noon, PendingVersion: "1.1.0", PendingSize: 7})
	tool := func(name, pkg string, args ...string) string {
		t.Helper()
		out, err := exec.Command(need(t, name, pkg), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	busctl := func(args ...string) string {
		t.Helper()
		return tool("busctl", "systemd", append([]string{"--no-pager", "--address=" + b.address()}, args...)...)
	}
	for _, c := range []struct{ got, want string }{
		{
			busctl("call", "com.coreos.update1", "/com/coreos/update1", "com.coreos.update1.Manager", "GetStatus"),
			fmt.Sprintf("xdssx %d 0 \"UPDATE_STATUS_UPDATED_NEED_REBOOT\" \"1.1.0\" 7\n", noon.Unix()),
		},
		{
			busctl("get-property", "org.semper.Update1", "/org/semper/Update1", "org.semper.Update1", "State", "PendingVersion", "LastCheck", "Paused"),
			fmt.Sprintf("s \"pending\"\ns \"1.1.0\"\nx %d\nb false\n", noon.Unix()),
		},
		{busctl("tree", "--list", "org.semper.Update1"), "/\n/org\n/org/semper\n/org/semper/Update1\n"},
		{busctl("tree", "--list", "com.coreos.update1"), "/\n/com\n/com/coreos\n/com/coreos/update1\n/com/coreos/update1/Manager\n"},
		{
			tool("dbus-send", "dbus", "--bus="+b.address(), "--print-reply=literal", "--dest=com.coreos.update1", "/com/coreos/update1/Manager", "com.coreos.update1.Manager.GetStatus"),
			fmt.Sprintf("   int64 %d\n   double 0\n   UPDATE_STATUS_UPDATED_NEED_REBOOT   1.1.0   int64 7\n", noon.Unix()),
		},
	} {
		if c.got != c.want {
			t.Errorf("got\n%swant\n%s", c.got, c.want)
		}
	}
	list := busctl("introspect", "org.semper.Update1", "/org/semper/Update1")
	for _, p := range properties {
		if !strings.Contains(list, "."+p.name+" ") {
			t.Errorf("busctl introspect does not show %s:\n%s", p.name, list)
		}
	}
	var failed *exec.ExitError
	_, err := exec.Command(need(t, "busctl", "systemd"), "--address="+b.address(), "set-property", "org.semper.Update1", "/org/semper/Update1", "org.semper.Update1", "Paused", "b", "true").Output()
	if !errors.As(err, &failed) {
		t.Errorf("a property was set: %v", err)
	}
}
