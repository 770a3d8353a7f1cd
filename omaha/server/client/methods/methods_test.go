package methods

import (
	"bytes"
	"os"
	"testing"
)

func TestCallsAreCurrent(t *testing.T) {
	made, err := Make()
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("../calls.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, have) {
		t.Error("calls.go is not what api.Operations make: run go generate ./omaha/server/client")
	}
}
