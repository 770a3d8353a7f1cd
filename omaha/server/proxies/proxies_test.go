package proxies

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"
)

func TestOrigin(t *testing.T) {
	trusted, err := Parse([]string{"10.0.0.0/8", "fd00::/8", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, peer string
		tls        bool
		headers    []string
		want       string
	}{
		{"nobody between", "192.0.2.7:5", false, nil, "192.0.2.7 http://direct"},
		{"nobody between, TLS", "192.0.2.7:5", true, nil, "192.0.2.7 https://direct"},
		{"a stranger's headers", "192.0.2.7:5", false, []string{"X-Forwarded-For", "10.0.0.1", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil", "Forwarded", "for=1.2.3.4;host=evil"}, "192.0.2.7 http://direct"},
		{"a proxy without headers", "10.0.0.1:5", false, nil, "10.0.0.1 http://direct"},
		{"a proxy", "10.0.0.1:5", false, []string{"X-Forwarded-For", "192.0.2.9", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "u.example"}, "192.0.2.9 https://u.example"},
		{"a proxy on IPv6", "[fd00::1]:5", false, []string{"X-Forwarded-For", "2001:db8::1"}, "2001:db8::1 http://direct"},
		{"mapped", "[::ffff:10.0.0.1]:5", false, []string{"X-Forwarded-For", "::ffff:192.0.2.9"}, "192.0.2.9 http://direct"},
		{"two proxies", "10.0.0.1:5", false, []string{"X-Forwarded-For", "192.0.2.9, 10.0.0.2"}, "192.0.2.9 http://direct"},
		{"two header lines", "10.0.0.1:5", false, []string{"X-Forwarded-For", "192.0.2.9", "X-Forwarded-For", "10.0.0.2"}, "192.0.2.9 http://direct"},
		{"invented by the client", "10.0.0.1:5", false, []string{"X-Forwarded-For", "1.1.1.1, 10.9.9.9, 192.0.2.9"}, "192.0.2.9 http://direct"},
		{"scheme and host invented by the client", "10.0.0.1:5", false, []string{"X-Forwarded-For", "192.0.2.9", "X-Forwarded-Proto", "http, https", "X-Forwarded-Host", "evil, u.example"}, "192.0.2.9 https://u.example"},
		{"rubbish before the client", "10.0.0.1:5", false, []string{"X-Forwarded-For", "rubbish, 192.0.2.9"}, "192.0.2.9 http://direct"},
		{"rubbish instead of a client", "10.0.0.1:5", false, []string{"X-Forwarded-For", "rubbish"}, "10.0.0.1 http://direct"},
		{"an unknown scheme", "10.0.0.1:5", false, []string{"X-Forwarded-For", "192.0.2.9", "X-Forwarded-Proto", "gopher"}, "192.0.2.9 http://direct"},
		{"scheme alone", "10.0.0.1:5", false, []string{"X-Forwarded-Proto", "https"}, "10.0.0.1 https://direct"},
		{"with a port", "10.0.0.1:5", false, []string{"X-Forwarded-For", "192.0.2.9:77"}, "192.0.2.9 http://direct"},
		{"Forwarded", "10.0.0.1:5", false, []string{"Forwarded", `For="[2001:db8::1]:80";Proto=HTTPS;host=u.example`}, "2001:db8::1 https://u.example"},
		{"Forwarded before X-Forwarded-For", "10.0.0.1:5", false, []string{"Forwarded", "for=192.0.2.9", "X-Forwarded-For", "1.1.1.1"}, "192.0.2.9 http://direct"},
		{"Forwarded twice", "10.0.0.1:5", false, []string{"Forwarded", `for=6.6.6.6;host=evil, for=192.0.2.9;proto=https;host=u.example, for=10.0.0.2;proto=http`}, "192.0.2.9 https://u.example"},
		{"Forwarded, unknown", "10.0.0.1:5", false, []string{"Forwarded", "for=unknown"}, "10.0.0.1 http://direct"},
		{"Forwarded, a comma in quotes", "10.0.0.1:5", false, []string{"Forwarded", `for="a,b", for=192.0.2.9`}, "192.0.2.9 http://direct"},
		{"very long", "10.0.0.1:5", false, []string{"X-Forwarded-For", "192.0.2.9," + strings.Repeat("10.0.0.2,", 100) + "10.0.0.2"}, "10.0.0.2 http://direct"},
		{"not IP", "@", false, []string{"X-Forwarded-For", "192.0.2.9"}, "invalid IP http://direct"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: c.peer, Host: "direct", Header: http.Header{}}
			if c.tls {
				r.TLS = &tls.ConnectionState{}
			}
			for i := 0; i < len(c.headers); i += 2 {
				r.Header.Add(c.headers[i], c.headers[i+1])
			}
			o := trusted.Origin(r)
			if got := o.Client.String() + " " + o.Scheme + "://" + o.Host; got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if bare := Trusted(nil).Origin(r); bare.Host != "direct" || bare.Client.String() == "192.0.2.9" {
				t.Errorf("nobody is trusted, and yet: %+v", bare)
			}
		})
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"", "10.0.0.0/33", "proxy.example", "10.0.0.0-10.0.0.9"} {
		if _, err := Parse([]string{bad}); err == nil || !strings.Contains(err.Error(), "want a network such as") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"192.0.2.9, 10.0.0.2", `for="[2001:db8::1]:80";proto=https`, `for="\"`, ",;=\"", ""} {
		f.Add(s, s)
	}
	trusted, _ := Parse([]string{"10.0.0.0/8"})
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, h := range []http.Header{{"Forwarded": {a, b}}, {"X-Forwarded-For": {a}, "X-Forwarded-Proto": {b}, "X-Forwarded-Host": {a, b}}} {
			o := trusted.Origin(&http.Request{RemoteAddr: "10.0.0.1:5", Header: h})
			if !o.Client.IsValid() || o.Scheme != "http" && o.Scheme != "https" {
				t.Fatalf("%+v", o)
			}
		}
	})
}
