package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/store/postgrestest"
)

// mainRun runs the tests, and what they need beside themselves.
type mainRun struct{ *testing.M }

var postgres *postgrestest.Server

func (m mainRun) Run() int {
	var err error
	if postgres, err = postgrestest.Start(context.Background(), "fsync=off"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.M.Run()
	if err := postgres.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

func TestMain(m *testing.M) {
	testscript.Main(mainRun{m}, map[string]func(){"semper-server": func() { os.Exit(run()) }})
}

// TestScripts runs the command as an operator does: testdata/script/*.txtar. These commands are added:
//
//	publish VERSION CHANNEL   publishes a small release with the token of the folder "data"
//	address FILE [https]  waits until a server has written its address there, and sets $SERVER
//	certificate FILE KEY  makes a certificate for 127.0.0.1 that is its own authority
//	lock PATH GROUP ID TEXT   asks for a reboot lock by FleetLock, and demands that the answer holds TEXT
//	revoke ROLE           revokes that role's token
//	remove NAME           removes that person, by the id in the list that was printed last
//	rot DIR               damages a file
//	signin FILE TEXT      signs in with the link that the file ends with, and demands that the answer holds TEXT
//	post PATH FILE TEXT   posts a file as an Omaha request, and demands that the answer holds TEXT
//	status N PROGRAM …    runs a program that must exit with N
//	whole FILE            sets $TOKEN to the token in a file
//
// All of them run with each of the databases. With PostgreSQL the environment names one, and a second in $SECOND; [sqlite] begins lines that are for SQLite only.
func TestScripts(t *testing.T) {
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir: "testdata/script",
				Setup: func(e *testscript.Env) error {
					if database == "sqlite" {
						return nil
					}
					first, err := postgres.Schema(context.Background())
					if err != nil {
						return err
					}
					second, err := postgres.Schema(context.Background())
					e.Setenv("SEMPER_DATABASE", first)
					e.Setenv("SECOND", second)
					return err
				},
				Condition: func(name string) (bool, error) { return name == database, nil },
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"address":     address,
					"certificate": certificate,
					"lock":        lock,
					"post":        post,
					"publish":     publish,
					"remove":      remove,
					"revoke":      revoke,
					"rot":         rot,
					"signin":      signIn,
					"status":      status,
					"whole": func(ts *testscript.TestScript, _ bool, args []string) {
						ts.Setenv("TOKEN", strings.TrimSpace(ts.ReadFile(args[0])))
					},
				},
			})
		})
	}
}

// revoke revokes the token of a role, by its id in the list that was printed last.
func revoke(ts *testscript.TestScript, _ bool, args []string) {
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == args[0] {
			ts.Check(ts.Exec("semper-server", "token", "revoke", f[0], "--data", "data"))
			return
		}
	}
	ts.Fatalf("no token of the role %s", args[0])
}

func remove(ts *testscript.TestScript, _ bool, args []string) {
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if f := strings.Fields(line); len(f) > 1 && f[len(f)-1] == args[0] {
			ts.Check(ts.Exec("semper-server", "people", "remove", f[0], "--data", "data"))
			return
		}
	}
	ts.Fatalf("nobody is called %s", args[0])
}

// rot changes a byte of the first file in a folder.
func rot(ts *testscript.TestScript, _ bool, args []string) {
	done := false
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || done {
			return err
		}
		done = true
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, b, 0o600))
	}))
	if !done {
		ts.Fatalf("no file in %s", args[0])
	}
}

func address(ts *testscript.TestScript, _ bool, args []string) {
	for range 600 {
		if data, err := os.ReadFile(ts.MkAbs(args[0])); err == nil {
			scheme := "http"
			if len(args) > 1 {
				scheme = args[1]
			}
			ts.Setenv("SERVER", scheme+"://"+strings.TrimSpace(string(data)))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("no address appeared in %s", args[0])
}

// status tells one failure from another, which "! exec" does not.
func status(ts *testscript.TestScript, _ bool, args []string) {
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("%s: %v, and not the status %s", strings.Join(args[1:], " "), err, args[0])
	}
}

func certificate(ts *testscript.TestScript, _ bool, args []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

func post(ts *testscript.TestScript, _ bool, args []string) {
	res, err := http.Post(ts.Getenv("SERVER")+args[0], "text/xml", strings.NewReader(ts.ReadFile(args[1])))
	ts.Check(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	ts.Check(err)
	if answer := fmt.Sprintf("%s\n%s", res.Status, body); !strings.Contains(answer, args[2]) {
		ts.Fatalf("the answer lacks %q:\n%s", args[2], answer)
	}
}

func signIn(ts *testscript.TestScript, _ bool, args []string) {
	_, secret, ok := strings.Cut(strings.TrimSpace(ts.ReadFile(args[0])), "#")
	if !ok {
		ts.Fatalf("%s ends with no link", args[0])
	}
	res, err := http.Post(ts.Getenv("SERVER")+"/auth/link", "application/json", strings.NewReader(fmt.Sprintf(`{"secret":%q}`, secret)))
	ts.Check(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	ts.Check(err)
	if answer := fmt.Sprintf("%s\n%s", res.Status, body); !strings.Contains(answer, args[1]) {
		ts.Fatalf("the answer lacks %q:\n%s", args[1], answer)
	}
}

func lock(ts *testscript.TestScript, _ bool, args []string) {
	req, err := http.NewRequest(http.MethodPost, ts.Getenv("SERVER")+args[0], strings.NewReader(fmt.Sprintf(`{"client_params":{"id":%q,"group":%q}}`, args[2], args[1])))
	ts.Check(err)
	req.Header.Set("fleet-lock-protocol", "true")
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	ts.Check(err)
	if answer := fmt.Sprintf("%s\n%s", res.Status, body); !strings.Contains(answer, args[3]) {
		ts.Fatalf("the answer lacks %q:\n%s", args[3], answer)
	}
}

func publish(ts *testscript.TestScript, _ bool, args []string) {
	version, channel := args[0], args[1]
	c, err := client.NewClient(ts.Getenv("SERVER"), strings.TrimSpace(ts.ReadFile("data/"+server.TokenFile)))
	ts.Check(err)
	payload := strings.Repeat(version, 1000)
	sum := sha256.Sum256([]byte(payload))
	file := api.File{Name: api.Payload, Size: int64(len(payload)), SHA256: hex.EncodeToString(sum[:])}
	_, err = c.Upload(context.Background(), file, strings.NewReader(payload), nil)
	ts.Check(err)
	manifest := fmt.Sprintf(`{"format":1,"version":%q,"architecture":"amd64","files":[{"name":%q,"size":%d,"sha256":%q}]}`, version, file.Name, file.Size, file.SHA256)
	_, err = c.PutRelease(context.Background(), version, client.PutReleaseQuery{}, api.NewRelease{Manifest: []byte(manifest), Signature: []byte("not looked at")})
	ts.Check(err)
	_, err = c.SetChannel(context.Background(), channel, client.SetChannelQuery{}, api.SetChannel{Version: version})
	ts.Check(err)
}
