// Package certs keeps a TLS server's certificate, and the authorities of its clients, as they are on disk.
//
//	cert, key     PEM files, reread when one of them is another file than before: by inode, size or time of change
//	client CAs    a PEM file, likewise; nil where clients need none
//
// The files are looked at with a handshake, at most every Every. A pair that cannot be used, half of a renewal for instance, changes nothing:
// the one before stays and the failure is logged, once for each state of the files.
//
// TLS 1.2 is the oldest version spoken. Limits: 1 MiB a file.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/semper-os/semper/fault"
)

// Every is how often the files are looked at.
const Every = 2 * time.Second

const maxFile = 1 << 20

// Files says where the certificates are.
type Files struct {
	Cert, Key string
	ClientCA  string // may be empty
}

// Keeper has the certificates in use. Its methods may be called from several goroutines.
type Keeper struct {
	files Files
	now   func() time.Time
	log   *slog.Logger

	mu     sync.Mutex
	looked time.Time
	state  [3]mark // that was tried last
	used   material
}

type material struct {
	conf    *tls.Config
	clients *x509.CertPool
	expires time.Time
}

// mark tells one state of a file from another.
type mark struct {
	inode    uint64
	size     int64
	modified time.Time
}

// New reads the files. Errors are of kind Input where their content is wrong, and IO where they cannot be read.
func New(files Files, now func() time.Time, log *slog.Logger) (*Keeper, error) {
	k := &Keeper{files: files, now: now, log: log, looked: now()}
	k.state = k.marks() // before reading: a change meanwhile is seen as one
	var err error
	k.used, err = load(files)
	return k, err
}

// Config returns the server's TLS settings, which follow the files.
func (k *Keeper) Config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return k.current().conf, nil },
	}
}

// Clients returns the authorities of client certificates, nil where there are none.
func (k *Keeper) Clients() *x509.CertPool { return k.current().clients }

// Expires tells until when the certificate in use is valid.
func (k *Keeper) Expires() time.Time { return k.current().expires }

func (k *Keeper) current() material {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if since := now.Sub(k.looked); since >= 0 && since < Every {
		return k.used
	}
	k.looked = now
	state := k.marks()
	if state == k.state {
		return k.used
	}
	k.state = state
	fresh, err := load(k.files)
	if err != nil {
		k.log.Error("the new certificate cannot be used; the one before stays", "error", err)
		return k.used
	}
	k.used = fresh
	k.log.Info("certificate reloaded", "file", k.files.Cert, "expires", fresh.expires)
	return k.used
}

func (k *Keeper) marks() (out [3]mark) {
	for i, path := range []string{k.files.Cert, k.files.Key, k.files.ClientCA} {
		info, err := os.Stat(path) // follows links: tools that renew swap them
		if err != nil {
			continue
		}
		out[i] = mark{size: info.Size(), modified: info.ModTime()}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			out[i].inode = sys.Ino
		}
	}
	return out
}

func load(files Files) (material, error) {
	cert, err := read(files.Cert)
	if err != nil {
		return material{}, err
	}
	key, err := read(files.Key)
	if err != nil {
		return material{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return material{}, fault.New(fault.Input, "certificate %s with the key %s: %w", files.Cert, files.Key, err)
	}
	out := material{expires: pair.Leaf.NotAfter.UTC(), conf: &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{pair},
	}}
	if files.ClientCA == "" {
		return out, nil
	}
	if out.clients, err = readPool(files.ClientCA); err != nil {
		return material{}, err
	}
	// Asked for and not demanded: people's tokens come without one, and a machine whose certificate is refused is told why.
	out.conf.ClientAuth, out.conf.ClientCAs = tls.RequestClientCert, out.clients
	return out, nil
}

func readPool(path string) (*x509.CertPool, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fault.New(fault.Input, "client authorities %s: it holds a %.40s, want certificates only", path, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Input, "client authorities %s: %w", path, err)
		}
		pool.AddCert(c)
		n++
	}
	if n == 0 {
		return nil, fault.New(fault.Input, "client authorities %s: it holds no PEM certificate", path)
	}
	return pool, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	if len(data) > maxFile {
		return nil, fault.New(fault.Input, "%s is longer than %d bytes", path, maxFile)
	}
	return data, nil
}
