package freshness

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/payload"
)

// step is one answer that a machine gets.
type step struct {
	after    time.Duration // since issued
	b        []byte
	running  string
	offered  string
	channel  string // "" for stable
	want     Case
	since    time.Duration // of the verdict
	behind   time.Duration // of the verdict; -1: the machine is not behind
	sentence string
	alarming bool
	allows   bool
}

// TestJudge follows machines from answer to answer; their memory goes through JSON each time, as an agent keeps it.
func TestJudge(t *testing.T) {
	key := ecKeys()[0]
	s0, s1 := sign(t, good(), key), sign(t, at(7*day1, "1.3.0"), key)
	forged := sign(t, at(8*day1, "1.2.0"), ecKeys()[1])
	beta := good()
	beta.Channel = "beta"
	for name, steps := range map[string][]step{
		"a quiet life": {
			{after: 0, b: s0, running: "1.1.0", offered: "1.2.0", want: Fresh, behind: -1, allows: true, sentence: "the newest version of channel stable is 1.2.0, as was said on 2026-01-02 03:04 UTC"},
			{after: day1, b: s0, running: "1.2.0", want: Fresh, behind: -1, allows: true},
			{after: 7 * day1, b: s1, running: "1.2.0", offered: "1.3.0", want: Fresh, behind: -1, allows: true},
			{after: 8 * day1, b: s1, running: "1.3.0", want: Fresh, behind: -1, allows: true},
			{after: 9 * day1, b: s1, running: "1.4.0", want: Fresh, behind: -1, allows: true}, // a channel that was set back
		},
		"frozen by an old answer": {
			{after: 0, b: s0, running: "1.2.0", want: Fresh, behind: -1, allows: true},
			{after: 13 * day1, b: s0, running: "1.2.0", want: Fresh, behind: -1, allows: true},
			{after: 14 * day1, b: s0, running: "1.2.0", want: Expired, since: 14 * day1, behind: -1, alarming: true, sentence: "expired on 2026-01-16"},
			{after: 20 * day1, b: s0, running: "1.2.0", offered: "1.2.1", want: Expired, since: 14 * day1, behind: -1, alarming: true},
			{after: 20 * day1, b: sign(t, at(20*day1, "1.3.0"), key), running: "1.2.0", offered: "1.3.0", want: Fresh, since: 20 * day1, behind: -1, allows: true},
		},
		"held back": {
			{after: 7 * day1, b: s1, running: "1.2.0", want: Fresh, since: 7 * day1, behind: 7 * day1, allows: true, sentence: "; the server has not offered it to this machine since 2026-01-09 03:04 UTC"},
			{after: 14*day1 - 1, b: s1, running: "1.2.0", want: Fresh, since: 7 * day1, behind: 7 * day1, allows: true},
			{after: 14 * day1, b: s1, running: "1.2.0", want: Withheld, since: 14 * day1, behind: 7 * day1, allows: true, sentence: "the newest version of channel stable is 1.3.0"},
			{after: 15 * day1, b: s1, running: "1.2.0", offered: "1.2.5", want: Withheld, since: 14 * day1, behind: 7 * day1, allows: true}, // a step on the way
			{after: 16 * day1, b: s1, running: "1.2.5", offered: "1.3.0", want: Fresh, since: 16 * day1, behind: -1, allows: true},
			{after: 17 * day1, b: s1, running: "1.3.0", want: Fresh, since: 16 * day1, behind: -1, allows: true},
		},
		"held back over a failure": {
			{after: 7 * day1, b: s1, running: "1.2.0", want: Fresh, since: 7 * day1, behind: 7 * day1, allows: true},
			{after: 8 * day1, running: "1.2.0", want: Missing, since: 8 * day1, behind: 7 * day1, alarming: true, sentence: "since 2026-01-10 03:04 UTC the server does not say any more"},
			{after: 15 * day1, b: s1, running: "1.2.0", want: Withheld, since: 15 * day1, behind: 7 * day1, allows: true},
		},
		"never any": {
			{after: 0, running: "1.2.0", want: Missing, behind: -1, sentence: "the server does not say how fresh its answers are"},
			{after: day1, running: "1.2.0", offered: "1.3.0", want: Missing, behind: -1},
			{after: 2 * day1, b: s0, running: "1.2.0", want: Fresh, since: 2 * day1, behind: -1, allows: true},
			{after: 3 * day1, running: "1.2.0", want: Missing, since: 3 * day1, behind: -1, alarming: true},
		},
		"replayed": {
			{after: 7 * day1, b: s1, running: "1.3.0", want: Fresh, since: 7 * day1, behind: -1, allows: true},
			{after: 8 * day1, b: s0, running: "1.3.0", want: Replayed, since: 8 * day1, behind: -1, alarming: true, sentence: "the server shows an old one"},
			{after: 9 * day1, b: s1, running: "1.3.0", want: Fresh, since: 9 * day1, behind: -1, allows: true},
		},
		"forged": {
			{after: 8 * day1, b: forged, running: "1.2.0", offered: "1.3.0", want: BadSignature, since: 8 * day1, behind: -1, alarming: true, sentence: "0 are by trusted keys"},
			{after: 8 * day1, b: []byte("rubbish"), running: "1.2.0", want: Malformed, since: 8 * day1, behind: -1, alarming: true},
			{after: 8 * day1, b: s0, running: "1.2.0", want: Fresh, since: 8 * day1, behind: -1, allows: true}, // the forged one left nothing behind
		},
		"not announced": {
			{after: 0, b: s0, running: "1.2.0", offered: "1.3.0", want: Unannounced, behind: -1, alarming: true, sentence: "the server offers 1.3.0, but the newest version of channel stable is 1.2.0"},
			{after: 7 * day1, b: s1, running: "1.2.0", offered: "1.3.0", want: Fresh, since: 7 * day1, behind: -1, allows: true},
		},
		"another channel": {
			{after: 7 * day1, b: s1, running: "1.2.0", want: Fresh, since: 7 * day1, behind: 7 * day1, allows: true},
			{after: 8 * day1, channel: "beta", running: "1.2.0", want: Missing, since: 8 * day1, behind: -1}, // there need not be statements for it
			{after: 9 * day1, channel: "beta", b: s1, running: "1.2.0", want: WrongSubject, since: 9 * day1, behind: -1, alarming: true},
			{after: 9 * day1, channel: "beta", b: sign(t, beta, key), running: "1.2.0", want: Fresh, since: 9 * day1, behind: -1, allows: true},
		},
		"clock set back": {
			{after: 8 * day1, b: s1, running: "1.2.0", want: Fresh, since: 8 * day1, behind: 8 * day1, allows: true},
			{after: -1000 * day1, b: s1, running: "1.2.0", want: Fresh, since: 7 * day1, behind: 7 * day1, allows: true}, // not before s1 was issued
			{after: 14 * day1, b: s1, running: "1.2.0", want: Withheld, since: 14 * day1, behind: 7 * day1, allows: true},
		},
		"clock ahead for a while": {
			{after: 1000 * day1, b: s0, running: "1.2.0", want: Expired, since: 1000 * day1, behind: -1, alarming: true},
			{after: day1, b: s0, running: "1.2.0", want: Fresh, since: day1, behind: -1, allows: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var memory Memory
			for i, c := range steps {
				s := Situation{Machine: machine(issued.Add(c.after)), Running: c.running, Offered: c.offered}
				if c.channel != "" {
					s.Channel = c.channel
				}
				v, next := Judge(c.b, trust(1, key), s, memory)
				if v.Case != c.want || v.Allows() != c.allows || v.Alarming() != c.alarming || !strings.Contains(v.Sentence(), c.sentence) {
					t.Errorf("answer %d: %s, allows %v, alarming %v: %s; want %s, %v, %v: %s", i+1, v.Case, v.Allows(), v.Alarming(), v.Sentence(), c.want, c.allows, c.alarming, c.sentence)
				}
				behind := time.Time{}
				if c.behind >= 0 {
					behind = issued.Add(c.behind)
				}
				if !v.Since.Equal(issued.Add(c.since)) || !v.Behind.Equal(behind) {
					t.Errorf("answer %d: since %v, behind since %v; want %v, %v", i+1, v.Since, v.Behind, issued.Add(c.since), behind)
				}
				b, err := json.Marshal(next)
				if err != nil {
					t.Fatal(err)
				}
				memory = Memory{}
				if err := json.Unmarshal(b, &memory); err != nil || !reflect.DeepEqual(memory, next) {
					t.Fatalf("memory %s (%v) is not %+v", b, err, next)
				}
			}
		})
	}
	v, memory := Judge(nil, payload.Trust{}, Situation{Machine: machine(issued)}, Memory{})
	if b, err := json.Marshal(memory); err != nil || string(b) != `{"case":"missing","since":"2026-01-02T03:04:05Z"}` || v.Err != nil {
		t.Errorf("memory of a machine without statements %s (%v)", b, err)
	}
	if v, _ := Judge(s1, trust(1, key), Situation{Machine: machine(issued.Add(8 * day1)), Running: "1.2.0", Patience: time.Hour}, Memory{
		Last: at(7*day1, "1.3.0"), Case: Fresh, Since: issued, Behind: issued.Add(8*day1 - time.Hour),
	}); v.Case != Withheld {
		t.Errorf("with little patience: %+v", v)
	}
}
