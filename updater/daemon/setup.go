package daemon

import (
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/etcdlock"
	"github.com/semper-os/semper/updater/fleetlock"
	"github.com/semper-os/semper/updater/network"
	"github.com/semper-os/semper/window"
)

// firstByte is how long a server of payloads may take to begin its answer.
const firstByte = 60 * time.Second

// setup reads the settings and makes what follows from them. Nothing is asked and nobody is called.
func setup(p Paths, id string) (agent.Setup, error) {
	s, err := config.Load(p.Root, p.Credentials)
	if err != nil {
		return agent.Setup{}, err
	}
	return follow(s, id, p.EtcdLock)
}

func follow(s config.Settings, id, program string) (agent.Setup, error) {
	payloads, err := network.Transport(s.Network, firstByte)
	if err != nil {
		return agent.Setup{}, err
	}
	out := agent.Setup{Settings: s, HTTP: &http.Client{Transport: payloads}}
	for _, url := range s.AllServers() {
		transport, err := network.Transport(s.Network, client.DefaultTimeout)
		if err != nil {
			return agent.Setup{}, err
		}
		c, err := client.New(url, client.Options{Transport: transport})
		if err != nil {
			return agent.Setup{}, err
		}
		out.Servers = append(out.Servers, agent.NamedServer{URL: url, Server: c})
	}
	if out.Windows, err = windows(&s.Reboot); err != nil {
		return agent.Setup{}, err
	}
	if out.Lock, err = lock(&s, id, program); err != nil {
		return agent.Setup{}, err
	}
	return out, nil
}

func windows(r *config.Reboot) (window.Schedule, error) {
	location, err := r.Location()
	if err != nil {
		return window.Schedule{}, fault.New(fault.Input, "reboot.time_zone: %w", err)
	}
	out := window.Schedule{Location: location}
	for _, spec := range r.Windows {
		w, err := window.Parse(spec)
		if err != nil {
			return window.Schedule{}, fault.New(fault.Input, "reboot.windows: %w", err)
		}
		out.Windows = append(out.Windows, w)
	}
	return out, nil
}

func lock(s *config.Settings, id, program string) (agent.Lock, error) {
	switch s.Reboot.Strategy {
	case config.RebootFleetLock:
		transport, err := network.Transport(s.Network, fleetlock.DefaultTimeout)
		if err != nil {
			return nil, err
		}
		return fleetlock.New(fleetlock.Options{URL: s.Reboot.FleetLock.URL, Group: s.Reboot.FleetLock.Group, ID: id, HTTP: &http.Client{Transport: transport}})
	case config.RebootEtcd:
		e := &s.Reboot.Etcd
		password, err := secret(e.PasswordFile)
		if err != nil {
			return nil, err
		}
		return etcdlock.New(program, etcdlock.Options{
			Endpoints: e.Endpoints, Group: e.Group, ID: id, TTL: e.Lease,
			CA: e.CAFile, Cert: e.Certificate, Key: e.Key, Username: e.Username, Password: password,
		})
	}
	return nil, nil
}

// maxSecret bounds a file with a password.
const maxSecret = 4 << 10

// secret reads a password's file; a line's end belongs to the file and not to the password.
func secret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fault.New(fault.IO, "reboot.etcd.password_file: %w (user semperd must be able to read it)", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fault.New(fault.IO, "reboot.etcd.password_file: %w", err)
	}
	word := strings.TrimRight(string(data), "\r\n")
	if len(data) > maxSecret || word == "" {
		return "", fault.New(fault.Input, "reboot.etcd.password_file: %s has %d bytes, 1 to %d are allowed", path, len(word), maxSecret)
	}
	return word, nil
}
