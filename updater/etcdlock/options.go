package etcdlock

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/semper-os/semper/fault"
)

// Options say where etcd is and who we are. Endpoints, Group and ID are needed.
type Options struct {
	Endpoints []string // "https://10.0.0.1:2379", 1 to 10, all http or all https
	CA        string   // files in PEM; CA empty: the system's certificates
	Cert, Key string   // both or neither
	Username  string   // both or neither
	Password  string
	Group     string        // ^[a-zA-Z0-9.-]{1,64}$, as with FleetLock
	ID        string        // ^[a-zA-Z0-9._-]{1,128}$, the agent's machine id
	TTL       time.Duration // 2 s to 24 h, 0: DefaultTTL

	DialTimeout    time.Duration // for the connection and the login, 0: 5 s, at most 1 min
	RequestTimeout time.Duration // for each request, 0: 5 s, at most 1 min

	Now func() time.Time // nil: time.Now; only for what people read
}

const (
	minTTL         = 2 * time.Second
	maxTTL         = 24 * time.Hour
	defaultTimeout = 5 * time.Second
	maxTimeout     = time.Minute
	maxPEM         = 1 << 20
)

var (
	groupName = regexp.MustCompile(`^[a-zA-Z0-9.-]{1,64}$`)
	machineID = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,128}$`)
)

// check fills in defaults and refuses what cannot work.
func (o *Options) check() error {
	if len(o.Endpoints) == 0 || len(o.Endpoints) > maxEndpoints {
		return fmt.Errorf("%d endpoints, want 1 to %d (example: \"https://10.0.0.1:2379\")", len(o.Endpoints), maxEndpoints)
	}
	scheme := ""
	for _, e := range o.Endpoints {
		u, err := url.Parse(e)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.Port() == "" || e != u.Scheme+"://"+u.Host {
			return fmt.Errorf("%.200q is not an endpoint (example: \"https://10.0.0.1:2379\")", e)
		}
		if scheme != "" && u.Scheme != scheme {
			return errors.New("endpoints must be all http or all https")
		}
		scheme = u.Scheme
	}
	switch {
	case (o.Cert == "") != (o.Key == ""):
		return errors.New("a client certificate needs its key, and a key its certificate")
	case (o.Username == "") != (o.Password == ""):
		return errors.New("a user needs a password, and a password a user")
	case scheme == "http" && (o.CA != "" || o.Cert != ""):
		return errors.New("certificates are set, but the endpoints are http: write https")
	case !groupName.MatchString(o.Group):
		return fmt.Errorf("group %.100q: want 1 to 64 letters, digits, '.' and '-'", o.Group)
	case !machineID.MatchString(o.ID):
		return fmt.Errorf("id %.200q: want 1 to 128 letters, digits, '.', '_' and '-'", o.ID)
	}
	if o.TTL == 0 {
		o.TTL = DefaultTTL
	}
	if o.TTL < minTTL || o.TTL > maxTTL {
		return fmt.Errorf("ttl %s is out of range (%s to %s)", o.TTL, minTTL, maxTTL)
	}
	for _, t := range []*time.Duration{&o.DialTimeout, &o.RequestTimeout} {
		if *t == 0 {
			*t = defaultTimeout
		}
		if *t < 0 || *t > maxTimeout {
			return fmt.Errorf("timeout %s is out of range (to %s)", *t, maxTimeout)
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// tls reads the certificates; they are read for each call, so that renewed ones are used.
func (o *Options) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pem, err := readPEM(o.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Input, "%s: no certificate in it (want PEM)", o.CA)
		}
	}
	if o.Cert != "" {
		cert, err := readPEM(o.Cert)
		if err != nil {
			return nil, err
		}
		key, err := readPEM(o.Key)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fault.New(fault.Input, "client certificate %s with key %s: %w", o.Cert, o.Key, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func readPEM(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.IO, "read certificate: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxPEM {
		return nil, fault.New(fault.Input, "%s: a certificate or key must be a regular file of at most %d bytes", path, maxPEM)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.IO, "read certificate: %w", err)
	}
	return b, nil
}

// connect makes a client; the connection is made with the first request. Its own logging is off: what goes wrong comes back as an error. The client waits for
// a connection until the time limit, and then forgets why there was none; cause keeps it.
func (l *Lock) connect(ctx context.Context, cause *error) (*clientv3.Client, error) {
	config := clientv3.Config{
		Endpoints:          l.o.Endpoints,
		DialTimeout:        l.o.DialTimeout,
		Username:           l.o.Username,
		Password:           l.o.Password,
		MaxCallRecvMsgSize: maxReply,
		MaxCallSendMsgSize: maxReply,
		Context:            ctx,
		Logger:             zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(
			func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				err := invoke(ctx, method, req, reply, cc, opts...)
				*cause = err
				return err
			})},
	}
	if l.o.Endpoints[0][:5] == "https" {
		var err error
		if config.TLS, err = l.o.tls(); err != nil {
			return nil, err
		}
	}
	return clientv3.New(config)
}
