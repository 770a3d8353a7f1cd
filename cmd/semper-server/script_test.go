package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"semper-server": func() { os.Exit(run()) }})
}

// TestScripts runs the command as an operator does: testdata/script/*.txtar. Two commands are added:
//
//	address FILE          waits until a server has written its address there, and sets $SERVER
//	lock PATH GROUP ID TEXT   asks for a reboot lock by FleetLock, and demands that the answer holds TEXT
//	post PATH FILE TEXT   posts a file as an Omaha request, and demands that the answer holds TEXT
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"address": address,
		"lock":    lock,
		"post":    post,
	}})
}

func address(ts *testscript.TestScript, _ bool, args []string) {
	for range 600 {
		if data, err := os.ReadFile(ts.MkAbs(args[0])); err == nil {
			ts.Setenv("SERVER", "http://"+strings.TrimSpace(string(data)))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("no address appeared in %s", args[0])
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
