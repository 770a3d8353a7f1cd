// Package proxies says who a request came from, and for which address, where proxies stand between.
//
//	client ── TLS ──▶ proxy A ── HTTP ──▶ proxy B ── HTTP ──▶ server        X-Forwarded-For: client, A
//	                  trusted             trusted (the connection's other end)
//
// Only what a trusted proxy wrote counts. The chain is read from its end, where the nearest proxy wrote, to the first address that is no trusted
// proxy's: that is the client, and whatever stands before it may be the client's invention. Forwarded (RFC 7239) counts before X-Forwarded-*.
// Without trusted proxies, and from anybody else, all of these headers are ignored.
//
// Limits: MaxHops addresses are read; an address that is none ends the reading, and the hop before it is the client.
package proxies

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

// MaxHops bounds a chain of proxies.
const MaxHops = 16

// Trusted are the networks of proxies whose headers are believed.
type Trusted []netip.Prefix

// Origin is where a request came from.
type Origin struct {
	Client netip.Addr // invalid where the connection has no IP address
	Scheme string     // "http" or "https", as the client used it
	Host   string     // as the client used it; not checked
}

// Parse reads networks, or addresses: "10.0.0.0/8", "::1".
func Parse(texts []string) (Trusted, error) {
	var out Trusted
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, addrErr := netip.ParseAddr(s)
			if addrErr != nil {
				return nil, fault.New(fault.Usage, "trusted proxy %.100q: want a network such as 10.0.0.0/8, or an address", s)
			}
			p = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func (t Trusted) has(a netip.Addr) bool {
	return slices.ContainsFunc(t, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Origin says where r came from.
func (t Trusted) Origin(r *http.Request) Origin {
	o := Origin{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		o.Scheme = "https"
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		o.Client = peer.Addr().Unmap().WithZone("")
	}
	if !t.has(o.Client) {
		return o
	}
	hops := forwarded(r.Header.Values("Forwarded"))
	if hops == nil {
		hops = legacy(r.Header)
	}
	for i := len(hops) - 1; i >= 0 && len(hops)-i <= MaxHops; i-- {
		// The hop was written by o.Client, a trusted proxy: its scheme and host count whoever its client was.
		h := hops[i]
		if h.scheme == "http" || h.scheme == "https" {
			o.Scheme = h.scheme
		}
		if h.host != "" {
			o.Host = h.host
		}
		a, ok := node(h.client)
		if !ok {
			break
		}
		o.Client = a
		if !t.has(a) {
			break
		}
	}
	return o
}

type hop struct{ client, scheme, host string }

// legacy reads X-Forwarded-*. Proxies append to -For; of -Proto and -Host most keep one value, the outermost proxy's.
func legacy(h http.Header) []hop {
	hops := []hop{}
	for _, a := range words(h.Values("X-Forwarded-For")) {
		hops = append(hops, hop{client: a})
	}
	schemes, hosts := words(h.Values("X-Forwarded-Proto")), words(h.Values("X-Forwarded-Host"))
	if len(hops) == 0 && len(schemes)+len(hosts) > 0 {
		hops = append(hops, hop{})
	}
	// The last value is the nearest proxy's: a client cannot have written it.
	last := len(hops) - 1
	if n := len(schemes); n > 0 {
		hops[last].scheme = strings.ToLower(schemes[n-1])
	}
	if n := len(hosts); n > 0 {
		hops[last].host = hosts[n-1]
	}
	return hops
}

func words(values []string) (out []string) {
	for _, v := range values {
		for w := range strings.SplitSeq(v, ",") {
			out = append(out, strings.TrimSpace(w))
		}
	}
	return out
}

// forwarded reads RFC 7239's header; nil where there is none. A list that breaks its grammar ends there, seen from its end.
func forwarded(values []string) []hop {
	if len(values) == 0 {
		return nil
	}
	hops := []hop{}
	for _, element := range split(strings.Join(values, ","), ',') {
		var h hop
		for _, pair := range split(element, ';') {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
				value = strings.ReplaceAll(value[1:len(value)-1], `\`, "")
			}
			switch strings.ToLower(name) {
			case "for":
				h.client = value
			case "proto":
				h.scheme = strings.ToLower(value)
			case "host":
				h.host = value
			}
		}
		hops = append(hops, h)
	}
	return hops
}

// split cuts s at sep outside of quotes.
func split(s string, sep byte) (out []string) {
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

// node reads an address with or without a port: "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80".
func node(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return a.Unmap().WithZone(""), err == nil
}
