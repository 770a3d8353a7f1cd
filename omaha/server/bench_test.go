package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

// BenchmarkMachines is the server's own work for each kind of request, without a network. `make bench-server` measures the whole.
func BenchmarkMachines(b *testing.B) {
	const poll = `<ping active="1"></ping><updatecheck></updatecheck><event eventtype="3" eventresult="2" previousversion=""></event>`
	const done = `<event eventtype="3" eventresult="2" previousversion="1.0.0"></event>`
	for _, c := range []struct {
		name, version, inside string
		machines              int64 // that take turns
	}{
		{"poll", "2.0.0", poll, 1000},
		{"grant", "1.0.0", poll, 1 << 40},
		{"completion", "2.0.0", done, 1 << 40},
	} {
		b.Run(c.name, func(b *testing.B) {
			dir := b.TempDir()
			s, err := Open(b.Context(), Config{Dir: dir, Database: databaseOf(b, dir)})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			if err := s.store.Write(b.Context(), func(tx store.Tx) error { return fillRollout(b.Context(), tx, rollout.Limits{AtOnce: 1 << 40}) }); err != nil {
				b.Fatal(err)
			}
			if c.name == "poll" {
				err = s.store.Write(b.Context(), func(tx store.Tx) error {
					_, err := SteerRollout(b.Context(), tx, 1, "abort", "", "bench", time.Now())
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			handler := s.Handler()
			post := func(i int64, version, inside string) {
				body := fmt.Sprintf(`<request protocol="3.0"><os platform="CoreOS"></os><app appid="%s" version="%s" track="stable" machineid="m%d" board="amd64-usr">%s</app></request>`,
					flatcarApp, version, i, inside)
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/update", strings.NewReader(body)))
				if w.Code != 200 {
					b.Errorf("status %d: %s", w.Code, w.Body)
				}
			}
			all := func(version, inside string) {
				var n atomic.Int64
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						post(n.Add(1)%c.machines, version, inside)
					}
				})
			}
			b.SetParallelism(64)
			if c.name == "completion" {
				all("1.0.0", poll)
				b.ResetTimer()
			}
			all(c.version, c.inside)
		})
	}
}
