package updatemetadata

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// Debian releases differ in the patch level of protoc, which shows in a comment and nowhere else.
var protocVersion = regexp.MustCompile(`(?m)^// \tprotoc +v.*\n`)

// TestGenerated runs the generator again and compares: what is checked in must be what update_metadata.proto says.
func TestGenerated(t *testing.T) {
	if _, err := exec.LookPath("protoc"); err != nil {
		t.Fatalf("this test needs protoc (Debian package protobuf-compiler): %v", err)
	}
	dir := t.TempDir()
	plugin := filepath.Join(dir, "protoc-gen-go")
	for _, args := range [][]string{
		{"go", "build", "-o", plugin, "google.golang.org/protobuf/cmd/protoc-gen-go"},
		{"protoc", "--plugin=" + plugin, "--go_out=" + dir, "--go_opt=paths=source_relative", "update_metadata.proto"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	const name = "update_metadata.pb.go"
	want, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(protocVersion.ReplaceAll(got, nil), protocVersion.ReplaceAll(want, nil)) {
		t.Errorf("%s is not what update_metadata.proto generates: run `go generate ./payload/updatemetadata`", name)
	}
}
