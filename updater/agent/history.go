package agent

import "time"

// maxHistory bounds the history; the oldest entries go first.
const maxHistory = 300

// Entry is a line of the history: a transition, or something that happened within a state.
type Entry struct {
	At    time.Time `json:"at"`
	From  StateName `json:"from,omitempty"` // of a transition
	State StateName `json:"state"`
	Text  string    `json:"text"`
	// Times is how many checks in a row a line stands for that all found nothing new; At is then the first one's time and Last the last one's.
	Times int       `json:"times,omitempty"`
	Last  time.Time `json:"last,omitzero"`
}

// transition reports whether e is one.
func (e *Entry) transition() bool { return e.From != "" }

// quiet reports whether e is the line of checks that found nothing.
func (e *Entry) quiet() bool { return e.Times > 0 }

// record appends e. A check that leads back to where it began takes two transitions each time; a machine makes thirty a day, and they would push all that
// matters out of the history. Such a pair becomes one line that counts, as long as the answer is the same.
func (s *State) record(e Entry) {
	e.Text = clip(e.Text, 500)
	if n := len(s.History); n > 0 && e.transition() && e.From == StateChecking {
		if begin := s.History[n-1]; begin.transition() && begin.State == StateChecking && begin.From == e.State {
			s.History = s.History[:n-1]
			e = Entry{At: begin.At, State: e.State, Text: e.Text, Times: 1, Last: e.At}
			if n > 1 {
				if before := &s.History[n-2]; before.quiet() && before.State == e.State && before.Text == e.Text {
					before.Times++
					before.Last = e.Last
					return
				}
			}
		}
	}
	s.History = append(s.History, e)
	if over := len(s.History) - maxHistory; over > 0 {
		s.History = s.History[over:]
	}
}

// note records something that is no transition.
func (s *State) note(at time.Time, text string) { s.record(Entry{At: at, State: s.State, Text: text}) }
