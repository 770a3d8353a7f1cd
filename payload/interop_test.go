package payload

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func publicPEM(t testing.TB, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func tool(t *testing.T, name, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("this test needs %s (Debian package %s): %v", name, debianPackage, err)
	}
}

// TestLayoutByOthers reads a payload with nothing of this package: the envelope by its offsets, the manifest with protoc, which knows no schema,
// the signatures with openssl.
func TestLayoutByOthers(t *testing.T) {
	tool(t, "protoc", "protobuf-compiler")
	tool(t, "openssl", "openssl")
	contents := testContents()
	b := write(t, testOptions(contents, keyA, rsaKey()))

	be := binary.BigEndian
	if string(b[:4]) != "CrAU" || be.Uint64(b[4:]) != 2 {
		t.Fatalf("starts with % x", b[:12])
	}
	manifestEnd := 24 + int(be.Uint64(b[12:]))
	blobs := manifestEnd + int(be.Uint32(b[20:]))
	manifest := decodeRaw(t, b[24:manifestEnd])
	field := func(text, pattern string) []string {
		t.Helper()
		found := regexp.MustCompile(`(?m)^`+pattern+`$`).FindAllStringSubmatch(text, -1)
		if len(found) == 0 {
			t.Fatalf("no %s in\n%s", pattern, text)
		}
		var values []string
		for _, f := range found {
			values = append(values, f[len(f)-1])
		}
		return values
	}
	for _, c := range []struct{ what, pattern, want string }{
		{"block_size", `3: (\d+)`, "4096"},
		{"minor_version", `12: (\d+)`, "0"},
		{"max_timestamp", `14: (\d+)`, "1760000000"},
		{"partition_name", `  1: "(\w+)"`, "root"},
	} {
		if got := field(manifest, c.pattern)[0]; got != c.want {
			t.Errorf("%s is %s, want %s", c.what, got, c.want)
		}
	}
	var dataEnd, size int
	fmt.Sscan(field(manifest, `4: (\d+)`)[0], &dataEnd)
	fmt.Sscan(field(manifest, `5: (\d+)`)[0], &size)
	if blobs+dataEnd+size != len(b) {
		t.Errorf("blobs at %d, signature at %d with %d bytes, but the file has %d bytes", blobs, blobs+dataEnd, size, len(b))
	}

	// Each REPLACE operation is a copy of the partition's blocks, found by the offsets that protoc printed.
	ops := regexp.MustCompile(`(?m)^  8 \{\n    1: 0\n    2: (\d+)\n    3: (\d+)\n    6 \{\n      1: (\d+)\n      2: (\d+)\n    \}`).FindAllStringSubmatch(manifest, -1)
	if len(ops) < 3 {
		t.Fatalf("%d REPLACE operations in\n%s", len(ops), manifest)
	}
	found := 0
	for _, op := range ops {
		var offset, length, start, blocks int
		for i, v := range []*int{&offset, &length, &start, &blocks} {
			fmt.Sscan(op[i+1], v)
		}
		blob := b[blobs+offset : blobs+offset+length]
		for _, c := range contents {
			if len(c) >= start*4096+length && bytes.Equal(c[start*4096:start*4096+length], blob) && (length+4095)/4096 == blocks {
				found++
			}
		}
	}
	if found != len(ops) {
		t.Errorf("%d of %d REPLACE operations hold the bytes of a partition where they should be", found, len(ops))
	}

	signed := b[:manifestEnd]
	opensslVerify(t, "metadata", b[manifestEnd:blobs], signed, 2)
	opensslVerify(t, "payload", b[blobs+dataEnd:], append(bytes.Clone(signed), b[blobs:blobs+dataEnd]...), 2)
}

func decodeRaw(t *testing.T, message []byte) string {
	t.Helper()
	cmd := exec.Command("protoc", "--decode_raw")
	cmd.Stdin = bytes.NewReader(message)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("protoc --decode_raw: %v\n%s", err, out)
	}
	return string(out)
}

// opensslVerify takes the signatures of a message made by keyA and rsaKey apart by hand (protobuf: tag 0x0a, length, then tag 0x12, length, data, tag
// 0x1d, size without padding as 4 bytes little endian) and lets openssl verify each.
func opensslVerify(t *testing.T, what string, message, signed []byte, count int) {
	t.Helper()
	length := func() int {
		n, size := binary.Uvarint(message[1:])
		message = message[1+size:]
		return int(n)
	}
	for i := range count {
		if message[0] != 0x0a {
			t.Fatalf("%s signature %d starts with tag %#x", what, i, message[0])
		}
		length()
		if message[0] != 0x12 {
			t.Fatalf("%s signature %d has no data", what, i)
		}
		n := length()
		data := message[:n]
		if message[n] != 0x1d {
			t.Fatalf("%s signature %d has no size without padding", what, i)
		}
		unpadded := binary.LittleEndian.Uint32(message[n+1:])
		message = message[n+5:]
		if strings.Trim(string(data[unpadded:]), "\x00") != "" {
			t.Errorf("%s signature %d is not padded with zeros", what, i)
		}
		key := []crypto.PublicKey{keyA.Public(), rsaKey().Public()}[i]
		dir := t.TempDir()
		for name, b := range map[string][]byte{"key.pem": publicPEM(t, key), "sig": data[:unpadded], "signed": signed} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "sig", "signed")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Verified OK") {
			t.Errorf("openssl says of %s signature %d: %v\n%s", what, i, err, out)
		}
	}
	if len(message) != 0 {
		t.Errorf("%d bytes behind the %s signatures", len(message), what)
	}
}

// TestBlobsByOthers lets the zstd tool decode the first REPLACE_ZSTD blob.
func TestBlobsByOthers(t *testing.T) {
	tool(t, "zstd", "zstd")
	contents := testContents()
	b, sum := writeSummary(t, testOptions(contents, keyA))
	for _, op := range sum.Manifest.operations {
		if op.kind != opZstd {
			continue
		}
		start := sum.Manifest.MetadataSize + op.offset
		blob := b[start : start+op.length]
		if sha256.Sum256(blob) != op.sum {
			t.Error("the blob is not where the manifest says")
		}
		cmd := exec.Command("zstd", "-d", "-c")
		cmd.Stdin = bytes.NewReader(blob)
		got, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		name := sum.Manifest.Partitions[op.partition].Name
		if want := contents[name][op.dst[0].start : op.dst[0].start+op.dst[0].size]; !bytes.Equal(got, want) {
			t.Errorf("zstd decodes an operation of %q to other bytes", name)
		}
		return
	}
	t.Fatal("no REPLACE_ZSTD operation")
}

func TestParsePublicKeys(t *testing.T) {
	both := append(publicPEM(t, keyA.Public()), publicPEM(t, rsaKey().Public())...)
	if keys, err := ParsePublicKeys(both); err != nil || len(keys) != 2 {
		t.Errorf("%d keys: %v", len(keys), err)
	}
	block, _ := pem.Decode(publicPEM(t, keyA.Public()))
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"no PEM":           []byte("hello"),
		"a certificate":    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}),
		"damaged":          pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: block.Bytes[1:]}),
		"a key and others": append(publicPEM(t, keyA.Public()), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes})...),
	} {
		if keys, err := ParsePublicKeys(b); err == nil {
			t.Errorf("%s: %d keys", name, len(keys))
		}
	}
}
