package etcdlock

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/semper-os/semper/fault"
)

// DefaultTTL is how long a slot is kept without a call, see the package's documentation.
const DefaultTTL = 30 * time.Minute

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

	Now func() time.Time `json:"-"` // nil: time.Now; only for what people read
}

const (
	minTTL         = 2 * time.Second
	maxTTL         = 24 * time.Hour
	defaultTimeout = 5 * time.Second
	maxTimeout     = time.Minute
	maxEndpoints   = 10
)

var (
	groupName = regexp.MustCompile(`^[a-zA-Z0-9.-]{1,64}$`)
	machineID = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,128}$`)
)

// Check fills in defaults and refuses what cannot work. Errors are of kind Input.
func (o *Options) Check() error {
	if err := o.check(); err != nil {
		return fault.Wrap(fault.Input, fmt.Errorf("etcd reboot lock: %w", err))
	}
	return nil
}

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
