package daemon_test

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/semper-os/semper/updater/agent"
)

// fast is a clock that runs times as fast as the real one, from the moment since on. It makes minutes between two tries into seconds; what really happens takes
// its time nevertheless.
type fast struct {
	since time.Time
	times int
}

func (c fast) Now() time.Time { return c.since.Add(time.Duration(c.times) * time.Since(c.since)) }

func (c fast) Sleep(ctx context.Context, d time.Duration) error {
	return agent.SystemClock{}.Sleep(ctx, d/time.Duration(c.times))
}

func decodeJSON(r *http.Request, v any) error { return json.NewDecoder(r.Body).Decode(v) }
