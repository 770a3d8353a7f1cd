package server

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/fleet"
)

func folder(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, "semper.db-") { // the log comes and goes
			names = append(names, name)
		}
	}
	return names
}

// TestLocal is on a database beside its server.
func TestLocal(t *testing.T) {
	dir := t.TempDir()
	f := serve(t, dir, Config{})
	f.publish("semper", "1.0.0", "stable")
	before, ctx := folder(t, dir), t.Context()
	l, err := OpenLocal(ctx, Place{Dir: dir, Database: databaseOf(t, dir)}, "the test")
	if err != nil {
		t.Fatal(err)
	}
	c := client.NewLocalClient(l)
	if me, err := c.Me(ctx); err != nil || me != (api.Me{Name: "the test", Via: string(fleet.ViaLocal), Role: string(fleet.Admin)}) {
		t.Errorf("me %+v, %v", me, err)
	}
	made, err := c.NewToken(ctx, api.NewToken{Role: "viewer"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutGroup(ctx, "a/b", client.PutGroupQuery{}); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), `group "a/b": want`) {
		t.Errorf("a group's name: %v", err)
	}
	if _, err := c.Machine(ctx, "nobody", client.MachineQuery{}); !fault.Is(err, fault.Input) || err.Error() != "machine nobody: not found" {
		t.Errorf("a machine that is not there: %v", err)
	}
	if _, err := c.Blob(ctx, strings.Repeat("0", 64)); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "not reached by the database alone") {
		t.Errorf("a payload: %v", err)
	}
	log, err := c.Audit(ctx, client.AuditQuery{Limit: "1"})
	if err != nil || len(log.Entries) != 1 || log.Entries[0].Who != "the test" || log.Entries[0].What != "token-new" {
		t.Errorf("audit log %+v, %v", log, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// The server fails, and says here what its log would say.
	if _, err := c.Channels(ctx, client.ChannelsQuery{}); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "database") {
		t.Errorf("without the database: %v (%v)", err, fault.KindOf(err))
	}
	if after := folder(t, dir); !slices.Equal(before, after) {
		t.Errorf("the data folder had %v, and has %v", before, after)
	}
	if status, _, body := f.do("GET", "/api/v1/channels", "", "Authorization", "Bearer "+made.Secret); status != 200 {
		t.Errorf("with the token that was made: status %d: %s", status, body)
	}
	f.stop()
	if s, err := openAt(t, dir); err != nil {
		t.Errorf("the server opens again: %v", err)
	} else if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestNobodyIsLocalByTheNetwork has requests name what marks those of this process.
func TestNobodyIsLocalByTheNetwork(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	for _, header := range []string{"Local", "Semper-Local", "X-Forwarded-For", "Forwarded", "Host"} {
		for _, value := range []string{"1", "admin", "localhost", "127.0.0.1", "for=127.0.0.1"} {
			if status, _, body := f.do("GET", "/api/v1/tokens", "", header, value); status != 401 {
				t.Errorf("%s: %s: status %d: %s", header, value, status, body)
			}
		}
	}
	if _, ok := localCaller(context.WithValue(t.Context(), callerKey{}, caller{role: fleet.Admin})); ok {
		t.Error("another caller's key counts")
	}
}

func TestLocalNeedsAServersData(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenLocal(t.Context(), Place{Dir: dir}, "the test"); !fault.Is(err, fault.Input) {
		t.Errorf("an empty folder: %v", err)
	}
	if names := folder(t, dir); names != nil {
		t.Errorf("the folder has %v", names)
	}
}

func TestForgetFailures(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	f.omaha(`<request protocol="3.0"><app appid="{5e3e2f0a-9d1b-4c58-8f53-7d1f0c6b7a11}" version="1.0.0" track="stable" machineid="m1" board="amd64-usr"><event eventtype="3" eventresult="0" errorcode="44" nextversion="1.1.0" reason="web"/></app></request>`)
	operator := f.newToken(fleet.Operator)
	c, err := client.NewClient(f.http.URL, operator)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{1, 0} {
		if got, err := c.ForgetFailures(t.Context(), "m1", client.ForgetFailuresQuery{}); err != nil || got.Forgotten != want {
			t.Errorf("forgot %+v, want %d (%v)", got, want, err)
		}
	}
	if _, err := c.ForgetFailures(t.Context(), "m2", client.ForgetFailuresQuery{}); !fault.Is(err, fault.Input) {
		t.Errorf("a machine that is not there: %v", err)
	}
}
