// Package sbom writes a release's software bill of materials as SPDX 2.3 JSON: one package for the image, one for every
// Debian package in it, one for every program of Semper's own. The same input gives the same bytes.
//
// Source: the SPDX specification 2.3, https://spdx.github.io/spdx-spec/v2.3/. Limits: licences are not concluded
// (NOASSERTION); Debian's copyright files lie in the image below /usr/share/doc.
package sbom

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Component is one part of an image.
type Component struct {
	Name         string
	Version      string
	Architecture string // Debian's name; empty for a program of Semper's own
	SHA256       string // of the .deb or the program, in hex
	Distribution string // the suite a Debian package comes from; empty for a program of Semper's own
}

// Image is what the document describes.
type Image struct {
	Name, Version string
	RootHash      []byte
	Created       time.Time // the build's epoch, not the clock
	Namespace     string    // a UUID in text form that is this build's alone
	Components    []Component
}

type document struct {
	SPDXVersion       string         `json:"spdxVersion"`
	DataLicense       string         `json:"dataLicense"`
	SPDXID            string         `json:"SPDXID"`
	Name              string         `json:"name"`
	DocumentNamespace string         `json:"documentNamespace"`
	CreationInfo      creationInfo   `json:"creationInfo"`
	Packages          []pkg          `json:"packages"`
	Relationships     []relationship `json:"relationships"`
}

type creationInfo struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type pkg struct {
	SPDXID           string        `json:"SPDXID"`
	Name             string        `json:"name"`
	VersionInfo      string        `json:"versionInfo"`
	DownloadLocation string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	CopyrightText    string        `json:"copyrightText"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	ExternalRefs     []externalRef `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm     string `json:"algorithm"`
	ChecksumValue string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	Element string `json:"spdxElementId"`
	Type    string `json:"relationshipType"`
	Related string `json:"relatedSpdxElement"`
}

const none = "NOASSERTION"

// Marshal returns the document of an image, indented, with a final newline.
func Marshal(im Image) ([]byte, error) {
	const root = "SPDXRef-Image"
	d := document{
		SPDXVersion: "SPDX-2.3", DataLicense: "CC0-1.0", SPDXID: "SPDXRef-DOCUMENT",
		Name:              im.Name + "-" + im.Version,
		DocumentNamespace: "urn:uuid:" + im.Namespace,
		CreationInfo:      creationInfo{Created: im.Created.UTC().Format(time.RFC3339), Creators: []string{"Tool: semper"}},
		Packages: []pkg{{
			SPDXID: root, Name: im.Name, VersionInfo: im.Version, DownloadLocation: none,
			LicenseConcluded: none, LicenseDeclared: none, CopyrightText: none,
			Checksums: []checksum{{"SHA256", hex.EncodeToString(im.RootHash)}},
		}},
		Relationships: []relationship{{"SPDXRef-DOCUMENT", "DESCRIBES", root}},
	}
	for i, c := range im.Components {
		p := pkg{
			SPDXID: fmt.Sprintf("SPDXRef-%d-%s", i+1, identifier(c.Name)), Name: c.Name, VersionInfo: c.Version, DownloadLocation: none,
			LicenseConcluded: none, LicenseDeclared: none, CopyrightText: none,
			Checksums: []checksum{{"SHA256", c.SHA256}},
		}
		if c.Distribution != "" {
			p.ExternalRefs = []externalRef{{"PACKAGE-MANAGER", "purl", fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=%s",
				url.PathEscape(c.Name), url.QueryEscape(c.Version), url.QueryEscape(c.Architecture), url.QueryEscape(c.Distribution))}}
		}
		d.Packages = append(d.Packages, p)
		d.Relationships = append(d.Relationships, relationship{root, "CONTAINS", p.SPDXID})
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return nil, fmt.Errorf("sbom: %w", err)
	}
	return []byte(b.String()), nil
}

var notInIdentifier = regexp.MustCompile(`[^A-Za-z0-9.-]`)

func identifier(name string) string { return notInIdentifier.ReplaceAllString(name, "-") }
