package qemutests

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// containerArchive returns an OCI image archive with one layer that holds one program: it prints hello and ends.
func containerArchive() ([]byte, error) {
	layer, err := tarOf(tarFile{"hello", 0o755, helloProgram()})
	if err != nil {
		return nil, err
	}
	layerSum := digest(layer)
	image, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/hello"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerSum}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor("application/vnd.oci.image.config.v1+json", image),
		"layers": []any{descriptor("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	if err != nil {
		return nil, err
	}
	top := descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
	top["annotations"] = map[string]string{"org.opencontainers.image.ref.name": imageName}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{top}})
	if err != nil {
		return nil, err
	}
	files := []tarFile{{"oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", 0o644, index}}
	for _, blob := range [][]byte{layer, image, manifest} {
		files = append(files, tarFile{"blobs/sha256/" + digest(blob)[len("sha256:"):], 0o644, blob})
	}
	return tarOf(files...)
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func descriptor(kind string, b []byte) map[string]any {
	return map[string]any{"mediaType": kind, "digest": digest(b), "size": len(b)}
}

type tarFile struct {
	name    string
	mode    int64
	content []byte
}

func tarOf(files ...tarFile) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg}); err != nil {
			return nil, fmt.Errorf("container image: %w", err)
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, fmt.Errorf("container image: %w", err)
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// helloProgram returns a static ELF program for x86-64: write(1, hello, …), exit(0).
func helloProgram() []byte {
	const base, headers = 0x400000, 64 + 56
	text := []byte(hello + "\n")
	code := []byte{
		0xb8, 1, 0, 0, 0, // mov $1, %eax      write
		0xbf, 1, 0, 0, 0, // mov $1, %edi      standard output
		0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea 16(%rip), %rsi: behind this code
		0xba, byte(len(text)), 0, 0, 0, // mov $len, %edx
		0x0f, 0x05, // syscall
		0xb8, 60, 0, 0, 0, // mov $60, %eax     exit
		0x31, 0xff, // xor %edi, %edi
		0x0f, 0x05, // syscall
	}
	le := binary.LittleEndian
	elf := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	elf = le.AppendUint16(elf, 2)            // a program
	elf = le.AppendUint16(elf, 62)           // x86-64
	elf = le.AppendUint32(elf, 1)            // version
	elf = le.AppendUint64(elf, base+headers) // entry
	elf = le.AppendUint64(elf, 64)           // program headers
	elf = le.AppendUint64(elf, 0)            // no sections
	elf = le.AppendUint32(elf, 0)            // flags
	for _, n := range []uint16{64, 56, 1, 64, 0, 0} {
		elf = le.AppendUint16(elf, n)
	}
	size := uint64(headers + len(code) + len(text))
	elf = le.AppendUint32(elf, 1) // load
	elf = le.AppendUint32(elf, 5) // read, execute
	for _, n := range []uint64{0, base, base, size, size, 0x1000} {
		elf = le.AppendUint64(elf, n)
	}
	return append(append(elf, code...), text...)
}
