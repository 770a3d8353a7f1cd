package semaphore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/etcdlock"
)

// maxPEM bounds a file with certificates.
const maxPEM = 1 << 20

// clientTLS reads the certificates; they are read for each call, so that renewed ones are used.
func clientTLS(o *etcdlock.Options) (*tls.Config, error) {
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
		if config.TLS, err = clientTLS(&l.o); err != nil {
			return nil, err
		}
	}
	return clientv3.New(config)
}
