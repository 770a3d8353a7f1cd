package sbom

import (
	"encoding/json"
	"testing"
	"time"
)

func TestMarshal(t *testing.T) {
	im := Image{
		Name: "semper", Version: "1.2.0", RootHash: []byte{0xab, 0xcd}, Created: time.Unix(1700000000, 0), Namespace: "0-1",
		Components: []Component{
			{Name: "libstdc++6", Version: "1:14.2.0-19", Architecture: "amd64", SHA256: "aa", Distribution: "trixie"},
			{Name: "semperd", Version: "1.2.0", SHA256: "bb"},
		},
	}
	b, err := Marshal(im)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if d.CreationInfo.Created != "2023-11-14T22:13:20Z" || d.DocumentNamespace != "urn:uuid:0-1" {
		t.Errorf("creation %+v in %s", d.CreationInfo, d.DocumentNamespace)
	}
	if len(d.Packages) != 3 || len(d.Relationships) != 3 {
		t.Fatalf("%d packages and %d relationships, want 3 of each", len(d.Packages), len(d.Relationships))
	}
	deb, own := d.Packages[1], d.Packages[2]
	if deb.SPDXID != "SPDXRef-1-libstdc--6" {
		t.Errorf("identifier %s", deb.SPDXID)
	}
	if got, want := deb.ExternalRefs[0].Locator, "pkg:deb/debian/libstdc++6@1%3A14.2.0-19?arch=amd64&distro=trixie"; got != want {
		t.Errorf("purl %s, want %s", got, want)
	}
	if own.ExternalRefs != nil {
		t.Error("Semper's own program is not a Debian package")
	}
	if got := d.Packages[0].Checksums[0].ChecksumValue; got != "abcd" {
		t.Errorf("the image's checksum is %s, want its root hash", got)
	}
}
