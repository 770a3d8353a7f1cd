package semaphore

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// member is one process of Debian's etcd.
type member struct {
	name         string
	client, peer string // URLs
	args         []string
	log          string
	cmd          *exec.Cmd
	done         chan struct{}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// newCluster starts n members that know each other, and waits until they answer. More are flags for all.
func newCluster(t *testing.T, n int, scheme string, more ...string) []*member {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Fatalf("this test needs etcd, of the Debian package etcd-server: %v", err)
	}
	dir := t.TempDir()
	members, initial := make([]*member, n), make([]string, n)
	for i := range members {
		name := fmt.Sprintf("m%d", i)
		members[i] = &member{
			name: name, client: scheme + "://" + freeAddress(t), peer: "http://" + freeAddress(t), log: filepath.Join(dir, name+".log"),
		}
		initial[i] = name + "=" + members[i].peer
	}
	for _, m := range members {
		m.args = append([]string{
			"--name", m.name, "--data-dir", filepath.Join(dir, m.name),
			"--listen-client-urls", m.client, "--advertise-client-urls", m.client,
			"--listen-peer-urls", m.peer, "--initial-advertise-peer-urls", m.peer,
			"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-token", filepath.Base(dir),
		}, more...)
		m.start(t)
		t.Cleanup(m.kill)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, m := range members {
			b, _ := os.ReadFile(m.log)
			t.Logf("%s, the end of its log:\n%s", m.name, b[max(0, len(b)-2000):])
		}
	})
	return members
}

func (m *member) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	m.cmd, m.done = exec.Command("etcd", m.args...), make(chan struct{})
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		cmd.Wait()
		close(done)
	}(m.cmd, m.done)
}

// kill is a power cut: SIGKILL, nothing is handed over.
func (m *member) kill() {
	m.cmd.Process.Kill()
	<-m.done
}

func endpoints(members []*member) []string {
	var urls []string
	for _, m := range members {
		urls = append(urls, m.client)
	}
	return urls
}

// direct is a client beside the lock, for what a person or a fault does.
func direct(t *testing.T, config clientv3.Config) *clientv3.Client {
	t.Helper()
	config.Logger = zap.NewNop()
	config.DialTimeout = patience
	c, err := clientv3.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ready waits until the member answers with the cluster's state.
func ready(t *testing.T, c *clientv3.Client) {
	t.Helper()
	eventually(t, "etcd answers", func(ctx context.Context) error {
		_, err := c.Get(ctx, "ready")
		return err
	})
}

// eventually calls f until it returns nil.
func eventually(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		err := f(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
