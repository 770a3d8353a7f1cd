package bus

import "time"

// How often progress is told, as update_engine does it.
const (
	paceStep = 0.01
	paceTime = 10 * time.Second
)

// pace holds back signals that carry nothing but a little progress.
type pace struct {
	clock Clock
	last  time.Time // of the last signal
	held  bool
}

// far reports whether progress p is worth a signal after one that said old.
func (p *pace) far(old, now float64) bool {
	return now-old >= paceStep || now < old || now == 1 || p.clock.Now().Sub(p.last) >= paceTime
}

func (p *pace) sent() { p.last, p.held = p.clock.Now(), false }

// due is when what is held back must go out.
func (p *pace) due() time.Time {
	if !p.held {
		return time.Time{}
	}
	return p.last.Add(paceTime)
}
