package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// lifetime of a certificate. Neither firmware nor semper-init looks at the dates (a machine's clock is not known to be right when it boots), so this
// only says for how long the author means to use the keys.
const lifetime = 20 // years

// Options of New.
type Options struct {
	Name string    // what the certificates are called, for instance "Semper OS"; "" stands for that
	Now  time.Time // the certificates' first day
	Rand io.Reader // serial numbers; the keys themselves always come from the operating system (crypto/rand)
	Fast bool      // for tests: RSA-2048 for the certificates and ECDSA P-256 for both payload keys, made in a moment
}

// File is one file that New made.
type File struct {
	Path   string `json:"path"`
	Secret bool   `json:"secret"`
	About  string `json:"about"`
}

// New makes a folder of keys. It exists completely or not at all: the keys are made beside it and put in place by a rename. A folder that holds
// anything, or a file of that name, is refused (kind Input).
func New(ctx context.Context, dir string, o Options) ([]File, error) {
	if o.Name == "" {
		o.Name = "Semper OS"
	}
	verityBits, second := 3072, generator{"RSA-4096", func() (crypto.Signer, error) { return rsa.GenerateKey(o.Rand, 4096) }}
	first := generator{"ECDSA P-256", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), o.Rand) }}
	if o.Fast {
		verityBits, second = 2048, first
	}
	dir = filepath.Clean(dir)
	if err := checkFree(dir); err != nil {
		return nil, err
	}
	parent, base := filepath.Split(dir)
	if parent == "" {
		parent = "."
	}
	temp, err := os.MkdirTemp(parent, "."+base+".partial-*") // mode 0700
	if err != nil {
		return nil, fault.New(fault.IO, "make keys: %w", err)
	}
	defer os.RemoveAll(temp)

	w := &writer{ctx: ctx, dir: temp, options: o}
	w.pair(secureBoot, " Secure Boot", 2048, "signs systemd-boot and the kernel images",
		"for the firmware's db variable, and for semper verify --cert")
	w.pair(verityName, " root hash", verityBits, "signs the root hash of every release", "goes into the initrd")
	w.payload("payload-1", first)
	w.payload("payload-2", second)
	w.file(trustFile, encodeTrust(1), 0o644, "how many payload keys must have signed; goes into the image")
	w.sync()
	if w.err != nil {
		return nil, w.err
	}
	if _, err := Load(temp); err != nil {
		return nil, fault.New(fault.Internal, "check the new keys: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// The system call itself: os.Rename refuses an empty folder as the target.
	if err := unix.Rename(temp, dir); err != nil {
		return nil, fault.New(fault.IO, "put the keys in place: %w", err)
	}
	if err := syncDir(parent); err != nil {
		return nil, err
	}
	for i := range w.files {
		w.files[i].Path = filepath.Join(dir, w.files[i].Path)
	}
	return w.files, nil
}

// checkFree accepts a path where there is nothing, or an empty folder. The rename at the end refuses the rest again, should it appear meanwhile.
func checkFree(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case os.IsNotExist(err):
		return nil
	case err != nil:
		return fault.New(fault.Input, "make keys in %s: %w", dir, err)
	case len(entries) > 0:
		return fault.New(fault.Input, "%s is not empty: keys are never overwritten, name a new folder", dir)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fault.New(fault.IO, "%w", err)
	}
	if !info.IsDir() {
		return fault.New(fault.Input, "%s is a symbolic link, name the folder itself", dir)
	}
	return nil
}

func encodeTrust(threshold int) []byte {
	return fmt.Appendf(nil, "# So many different keys must have signed a payload before a machine writes it.\nthreshold = %d\n", threshold)
}

// writer makes the files of a folder until the first error.
type writer struct {
	ctx     context.Context
	dir     string
	options Options
	files   []File
	err     error
}

func (w *writer) pair(name, subject string, bits int, aboutKey, aboutCert string) {
	key := w.generate(name, func() (crypto.Signer, error) { return rsa.GenerateKey(w.options.Rand, bits) })
	if w.err != nil {
		return
	}
	cert, err := selfSigned(key, w.options.Name+subject, w.options.Now, w.options.Rand)
	if err != nil {
		w.err = fmt.Errorf("make %s.crt: %w", name, err)
		return
	}
	w.private(name, key, fmt.Sprintf("RSA-%d, %s", bits, aboutKey))
	w.file(name+".crt", certificatePEM(cert), 0o644, aboutCert)
}

// generator makes keys of one algorithm.
type generator struct {
	algorithm string
	generate  func() (crypto.Signer, error)
}

func (w *writer) payload(name string, g generator) {
	key := w.generate(name, g.generate)
	if w.err != nil {
		return
	}
	public, err := publicPEM(key.Public())
	if err != nil {
		w.err = fmt.Errorf("make %s.pem: %w", name, err)
		return
	}
	w.private(name, key, g.algorithm+", signs update payloads and manifest.json")
	w.file(name+".pem", public, 0o644, "goes into the image: machines trust it")
}

func (w *writer) generate(name string, generate func() (crypto.Signer, error)) crypto.Signer {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return nil
	}
	key, err := generate()
	if err != nil {
		w.err = fmt.Errorf("make %s.key: %w", name, err)
	}
	return key
}

func (w *writer) private(name string, key crypto.Signer, about string) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.err = fmt.Errorf("make %s.key: %w", name, err)
		return
	}
	w.file(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600, about)
}

func (w *writer) file(name string, content []byte, mode os.FileMode, about string) {
	if w.err != nil {
		return
	}
	f, err := os.OpenFile(filepath.Join(w.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err == nil {
		_, err = f.Write(content)
		if err == nil {
			err = f.Chmod(mode) // whatever the umask is
		}
		if err == nil {
			err = f.Sync()
		}
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}
	if err != nil {
		w.err = fault.New(fault.IO, "write %s: %w", name, err)
		return
	}
	w.files = append(w.files, File{Path: name, Secret: mode == 0o600, About: about})
}

func (w *writer) sync() {
	if w.err == nil {
		w.err = syncDir(w.dir)
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fault.New(fault.IO, "flush folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fault.New(fault.IO, "flush folder %s: %w", dir, err)
	}
	return nil
}

// selfSigned makes a certificate in DER. It is its own authority (CA, keyCertSign), because OpenSSL, inside of firmware too, takes a self-signed
// certificate as its own issuer only then.
func selfSigned(key crypto.Signer, name string, now time.Time, random io.Reader) ([]byte, error) {
	serial := make([]byte, 16)
	if _, err := io.ReadFull(random, serial); err != nil {
		return nil, fault.New(fault.IO, "draw a serial number: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always as long
	start := now.UTC().Truncate(24 * time.Hour)
	template := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             start,
		NotAfter:              start.AddDate(lifetime, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		SignatureAlgorithm:    x509.SHA256WithRSA,
	}
	return x509.CreateCertificate(random, template, template, key.Public(), key)
}
