// Package release writes and reads the directory that a build makes: all that a server or a person needs of a version, and one signed list of it.
//
//	OUT/semper-1.2.0/
//	  manifest.json       this list: what the release is, and every other file with its size and SHA-256
//	  manifest.json.sig   detached signatures of manifest.json, one or more
//	  disk.raw root.erofs root.verity root.verity-sig uki.efi full.crau sbom.spdx.json packages.lock
//
// manifest.json is one JSON object with the fields of Manifest in that order, indented by two spaces, files sorted by name, ending in a newline. No
// other form is accepted, so that a release has one manifest byte for byte. manifest.json.sig is a JSON array:
//
//	[
//	  {
//	    "key_id": "<SHA-256 of the public key's SubjectPublicKeyInfo in DER, 64 hexadecimal digits>",
//	    "algorithm": "ecdsa-p256-sha256" | "rsa4096-pkcs1v15-sha256",
//	    "signature": "<base64: DER for ECDSA, big-endian for RSA>"
//	  }
//	]
//
// Each signature is over the bytes of manifest.json, and "openssl dgst -sha256 -verify payload-1.pem" checks it. The keys are the payload keys; a release is
// believed when at least Trust.Threshold different ones have signed, and its manifest is not even parsed before. Signatures are deterministic (RFC 6979), so
// the same build gives the same directory.
//
// A release appears complete or not at all: files are written to OUT/.semper-1.2.0.partial-*, flushed, and renamed. What a crash left behind is
// removed by the next Writer for the same version.
//
// Limits: 64 files without folders, 4 TiB a file, 1 MiB of manifest, 16 signatures.
package release

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
)

// The names of the two files that are not in the manifest's own list, and of those that other programs look for.
const (
	ManifestFile  = "manifest.json"
	SignatureFile = "manifest.json.sig"

	Disk     = "disk.raw"
	Root     = "root.erofs"
	Verity   = "root.verity"
	RootSig  = "root.verity-sig"
	UKI      = "uki.efi"
	Payload  = "full.crau"
	SBOM     = "sbom.spdx.json"
	Packages = "packages.lock"
)

const (
	formatVersion = 1
	maxFiles      = 64
	maxFileSize   = 1 << 42
	maxManifest   = 1 << 20
	maxName       = 16 // characters of an image's name
)

// Manifest is what manifest.json says.
type Manifest struct {
	Format          int    `json:"format"` // 1
	Name            string `json:"name"`   // of the image: IMAGE_ID
	Version         string `json:"version"`
	Epoch           uint64 `json:"epoch"`        // machines never go back to a lower one
	MinVersion      string `json:"min_version"`  // the oldest version that can be updated to this one; "": any
	Architecture    string `json:"architecture"` // Debian's name: "amd64"
	RootHash        string `json:"root_hash"`    // 64 hexadecimal digits
	PackagesSHA256  string `json:"packages_sha256"`
	SourceDateEpoch int64  `json:"source_date_epoch"` // seconds since 1970
	Files           []File `json:"files"`             // sorted by name
}

// File is one file of a release.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // 64 hexadecimal digits
}

// File returns the entry of a file.
func (m *Manifest) File(name string) (File, bool) {
	i := slices.IndexFunc(m.Files, func(f File) bool { return f.Name == name })
	if i < 0 {
		return File{}, false
	}
	return m.Files[i], true
}

// Dir returns the name of the release's directory: "semper-1.2.0".
func (m *Manifest) Dir() string { return m.Name + "-" + m.Version }

// Marshal returns the bytes of manifest.json, or an error (kind Input) when a field is not what it should be.
func (m *Manifest) Marshal() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	return encode(m)
}

// ParseManifest reads manifest.json strictly: known fields, valid values, and exactly the bytes that Marshal would write.
// It does not look at signatures; Open does, before it calls this.
func ParseManifest(b []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := decode(b, maxManifest, m); err != nil {
		return nil, fault.New(fault.Input, "%s: %w", ManifestFile, err)
	}
	if m.Format != formatVersion {
		return nil, fault.New(fault.Input, "%s: format %d, this program knows %d", ManifestFile, m.Format, formatVersion)
	}
	canonical, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(b, canonical) {
		return nil, fault.New(fault.Input, "%s: not in its canonical form", ManifestFile)
	}
	return m, nil
}

func (m *Manifest) check() error {
	bad := func(field, value string) error {
		return fault.New(fault.Input, "%s: %s is %.80q", ManifestFile, field, value)
	}
	if m.Format != formatVersion {
		return fault.New(fault.Internal, "%s: format %d", ManifestFile, m.Format)
	}
	if err := CheckName(m.Name); err != nil {
		return err
	}
	if err := CheckVersion(m.Version); err != nil {
		return err
	}
	if m.MinVersion != "" {
		if err := CheckVersion(m.MinVersion); err != nil {
			return err
		}
		if bootentry.Compare(m.MinVersion, m.Version) > 0 {
			return fault.New(fault.Input, "%s: min_version %s is newer than the release, %s", ManifestFile, m.MinVersion, m.Version)
		}
	}
	if _, known := gpt.TypesOf(m.Architecture); !known {
		return bad("architecture", m.Architecture)
	}
	if !isDigest(m.RootHash) {
		return bad("root_hash", m.RootHash)
	}
	if !isDigest(m.PackagesSHA256) {
		return bad("packages_sha256", m.PackagesSHA256)
	}
	if m.SourceDateEpoch < 0 || m.SourceDateEpoch > 1<<40 {
		return fault.New(fault.Input, "%s: source_date_epoch is %d", ManifestFile, m.SourceDateEpoch)
	}
	if len(m.Files) == 0 || len(m.Files) > maxFiles {
		return fault.New(fault.Input, "%s: lists %d files, between 1 and %d are possible", ManifestFile, len(m.Files), maxFiles)
	}
	for i, f := range m.Files {
		if err := checkFileName(f.Name); err != nil {
			return err
		}
		if i > 0 && m.Files[i-1].Name >= f.Name {
			return fault.New(fault.Input, "%s: file %s is listed twice or out of order", ManifestFile, f.Name)
		}
		if f.Size < 0 || f.Size > maxFileSize {
			return fault.New(fault.Input, "%s: file %s has %d bytes", ManifestFile, f.Name, f.Size)
		}
		if !isDigest(f.SHA256) {
			return bad("the SHA-256 of "+f.Name, f.SHA256)
		}
	}
	return nil
}

func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && hex.EncodeToString(b) == s
}

var (
	nameSyntax    = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	versionSyntax = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*([-~][a-z0-9]+(\.[a-z0-9]+)*)*$`)
	fileSyntax    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
)

// CheckName reports why an image's name cannot be used: lower-case letters, digits and dashes, at most 16.
func CheckName(name string) error {
	if len(name) > maxName || !nameSyntax.MatchString(name) {
		return fault.New(fault.Input, "image name %.80q: lower-case letters, digits and single dashes, at most %d characters", name, maxName)
	}
	return nil
}

// CheckVersion reports why a version cannot be used: numbers with dots, and after a - or ~ words of lower-case letters and digits ("1.2.0-rc.1", "1.2.0~beta2").
// It becomes part of a partition's label, a FAT file name that must not depend on case, and a directory's name, and it has no + because a boot entry's
// name has its counter behind one.
func CheckVersion(version string) error {
	if !versionSyntax.MatchString(version) {
		return fault.New(fault.Input, "version %.80q: write numbers with dots, for instance 1.2.0, 1.2.0-rc.1 or 1.2.0~beta2", version)
	}
	return layout.CheckVersion(version)
}

func checkFileName(name string) error {
	if !fileSyntax.MatchString(name) || strings.HasPrefix(name, ManifestFile) || filepath.Base(name) != name {
		return fault.New(fault.Input, "%.80q cannot be a file of a release", name)
	}
	return nil
}

// encode is how all JSON of this package is written.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func decode(b []byte, limit int, v any) error {
	if len(b) > limit {
		return fault.New(fault.Input, "it has more than %d bytes", limit)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
