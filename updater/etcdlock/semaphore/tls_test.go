package semaphore

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/etcdlock"
)

// certs makes certificates in a folder: NAME.crt and NAME.key.
type certs struct {
	t   *testing.T
	dir string
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
}

func newCerts(t *testing.T) *certs {
	c := &certs{t: t, dir: t.TempDir()}
	c.make("ca")
	return c
}

func (c *certs) path(name string) string { return filepath.Join(c.dir, name) }

func (c *certs) make(name string) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := c.ca, c.key
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.ca == nil {
		if c.ca, err = x509.ParseCertificate(der); err != nil {
			c.t.Fatal(err)
		}
		c.key = key
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(c.path(file), pem.EncodeToMemory(block), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestTLSAndUsers gives a machine the least that it needs: a client certificate, and a user whose role reads its group and writes the holders.
func TestTLSAndUsers(t *testing.T) {
	t.Parallel()
	ours, theirs := newCerts(t), newCerts(t)
	ours.make("server")
	ours.make("client")
	theirs.make("client")
	members := newCluster(t, 1, "https", "--cert-file", ours.path("server.crt"), "--key-file", ours.path("server.key"),
		"--trusted-ca-file", ours.path("ca.crt"), "--client-cert-auth", "--bcrypt-cost", "4")
	pair, err := tls.LoadX509KeyPair(ours.path("client.crt"), ours.path("client.key"))
	wantNil(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(ours.ca)
	c := direct(t, clientv3.Config{Endpoints: endpoints(members), TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}})
	ready(t, c)

	o := etcdlock.Options{
		Endpoints: endpoints(members), Group: "g", ID: "a", CA: ours.path("ca.crt"), Cert: ours.path("client.crt"), Key: ours.path("client.key"),
	}
	try := func(name string, want fault.Kind, text string, change func(*etcdlock.Options)) {
		t.Helper()
		p := o
		change(&p)
		err := lock(t, p).Acquire(t.Context())
		if !fault.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: kind %v: %v, want kind %v and %q", name, fault.KindOf(err), err, want, text)
		}
	}
	wantNil(t, lock(t, o).Acquire(t.Context()))
	wantNil(t, lock(t, o).Release(t.Context()))
	// These wait for their time limit, all at once.
	var refused sync.WaitGroup
	for name, c := range map[string]struct {
		text   string
		change func(*etcdlock.Options)
	}{
		"no client certificate":        {"in time", func(p *etcdlock.Options) { p.Cert, p.Key = "", "" }},
		"another's client certificate": {"in time", func(p *etcdlock.Options) { p.Cert, p.Key = theirs.path("client.crt"), theirs.path("client.key") }},
		"another's server certificate": {"unknown authority", func(p *etcdlock.Options) { p.CA = theirs.path("ca.crt") }},
	} {
		refused.Go(func() {
			try(name, fault.Network, c.text, func(p *etcdlock.Options) {
				p.RequestTimeout = 4 * time.Second
				c.change(p)
			})
		})
	}
	refused.Wait()
	try("no CA file", fault.IO, "no such file", func(p *etcdlock.Options) { p.CA = ours.path("none") })
	try("CA file without a certificate", fault.Input, "no certificate in it", func(p *etcdlock.Options) { p.CA = ours.path("ca.key") })
	try("a folder", fault.Input, "regular file", func(p *etcdlock.Options) { p.Cert = ours.dir })
	try("another's key", fault.Input, "client certificate", func(p *etcdlock.Options) { p.Key = theirs.path("client.key") })

	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := c.UserAdd(ctx, "root", "toor"); return err },
		func(ctx context.Context) error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := c.RoleAdd(ctx, "machine"); return err },
		func(ctx context.Context) error {
			_, err := c.RoleGrantPermission(ctx, "machine", prefix+"g/", clientv3.GetPrefixRangeEnd(prefix+"g/"), clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func(ctx context.Context) error {
			_, err := c.RoleGrantPermission(ctx, "machine", prefix+"g/holders/", clientv3.GetPrefixRangeEnd(prefix+"g/holders/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func(ctx context.Context) error { _, err := c.UserAdd(ctx, "machines", "secret"); return err },
		func(ctx context.Context) error { _, err := c.UserGrantRole(ctx, "machines", "machine"); return err },
		func(ctx context.Context) error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	o.Username, o.Password = "machines", "secret"
	l := lock(t, o)
	for _, step := range []func(context.Context) error{l.Acquire, l.Held, l.Acquire, l.Release, l.Acquire} {
		wantNil(t, step(t.Context()))
	}
	p := o
	p.ID = "b"
	wantBusy(t, lock(t, p).Acquire(t.Context()), 1, "a")
	try("wrong password", fault.Verification, "refuses the user", func(p *etcdlock.Options) { p.Password = "x" })
	try("another group", fault.Verification, "permission denied", func(p *etcdlock.Options) { p.Group = "h" })
}
