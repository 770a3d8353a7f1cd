package openapi

import (
	"bytes"
	"testing"

	"github.com/semper-os/semper/omaha/server/api/openapi/document"
)

func TestDocumentIsCurrent(t *testing.T) {
	made, err := document.Make("..", "../../rollout")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, Document) {
		t.Error("openapi.json is not what the sources make: run go generate ./omaha/server/api/openapi")
	}
}
