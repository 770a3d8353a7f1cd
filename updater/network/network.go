// Package network makes HTTP transports from the agent's settings: proxy, certificate authorities, a client certificate.
//
//	proxy = ""              the environment's HTTPS_PROXY, HTTP_PROXY and NO_PROXY
//	proxy = "none"          no proxy, whatever the environment says
//	proxy = "http://…"      that one for everything; https:// and socks5:// too
//	ca_file                 PEM certificates that are trusted beside the system's
//	client_certificate, client_key   shown to whoever asks for one
//
// Files are read when a transport is made, so a reload of the settings reads them anew. Limits: 1 MiB a file.
package network

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/config"
)

// maxFile bounds a file with certificates or a key.
const maxFile = 1 << 20

// Transport returns a transport with limits for every step up to an answer's first byte; firstByte bounds the last of them.
// Errors are of kind Input where a file's content is wrong, and IO where it cannot be read.
func Transport(n config.Network, firstByte time.Duration) (*http.Transport, error) {
	conf, err := TLS(n)
	if err != nil {
		return nil, err
	}
	proxy, err := proxyOf(n.Proxy)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  firstByte,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        10 * time.Second, // nothing is open, and nothing wakes up, between two checks
		MaxIdleConnsPerHost:    1,
		DisableCompression:     true, // what is hashed and counted is what was sent
		ForceAttemptHTTP2:      true,
	}, nil
}

// TLS returns the TLS settings; nil where they are the defaults.
func TLS(n config.Network) (*tls.Config, error) {
	if n.CAFile == "" && n.ClientCertificate == "" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if n.CAFile != "" {
		pem, err := read("network.ca_file", n.CAFile)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fault.New(fault.IO, "the system's certificates: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Input, "network.ca_file: %s holds no PEM certificate", n.CAFile)
		}
		conf.RootCAs = pool
	}
	if n.ClientCertificate != "" {
		cert, err := read("network.client_certificate", n.ClientCertificate)
		if err != nil {
			return nil, err
		}
		key, err := read("network.client_key", n.ClientKey)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fault.New(fault.Input, "network.client_certificate: %s with the key %s: %w", n.ClientCertificate, n.ClientKey, err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

func proxyOf(setting string) (func(*http.Request) (*url.URL, error), error) {
	switch setting {
	case "":
		return http.ProxyFromEnvironment, nil
	case config.ProxyNone:
		return nil, nil
	}
	u, err := url.Parse(setting)
	if err != nil || u.Host == "" {
		return nil, fault.New(fault.Input, "network.proxy: %q is not an address", config.Redact(setting))
	}
	return http.ProxyURL(u), nil
}

func read(key, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.IO, "%s: %w (user semperd must be able to read it)", key, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fault.New(fault.IO, "%s: %w", key, err)
	}
	if len(data) > maxFile {
		return nil, fault.New(fault.Input, "%s: %s is longer than %d bytes", key, path, maxFile)
	}
	return data, nil
}
