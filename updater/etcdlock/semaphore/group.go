package semaphore

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/semper-os/semper/fault"
)

// Holder is a machine that has a slot.
type Holder struct {
	ID    string
	Since time.Time // when it took the slot first, by its own clock; zero where that is not known
}

// group is what was below the group's prefix at one revision.
type group struct {
	revision    int64 // of the store
	maxRevision int64 // of the key max, 0: there is none
	max         int
	holders     []Holder // by id, our own too
	mine        slot
}

// slot is our own key.
type slot struct {
	exists  bool
	created int64
	lease   clientv3.LeaseID
	since   time.Time
}

// decode reads a group. What is not understood is an error where it decides who may reboot (max), and a holder where it is one.
func decode(root, id string, r *clientv3.GetResponse) (group, error) {
	g := group{max: defaultMax}
	if r.Header != nil {
		g.revision = r.Header.Revision
	}
	if r.More {
		return group{}, fault.New(fault.Input, "more than %d keys below %s", maxHolders, root)
	}
	for _, kv := range r.Kvs {
		name, ok := strings.CutPrefix(string(kv.Key), root)
		if !ok {
			return group{}, fault.New(fault.Input, "etcd answered with a key outside of %s", root)
		}
		if name == "max" {
			n, err := parseMax(string(kv.Value))
			if err != nil {
				return group{}, fault.New(fault.Input, "%smax: %w", root, err)
			}
			g.max, g.maxRevision = n, kv.ModRevision
			continue
		}
		holder, ok := strings.CutPrefix(name, "holders/")
		if !ok {
			continue
		}
		since := decodeHolder(kv.Value)
		g.holders = append(g.holders, Holder{ID: holder, Since: since})
		if holder == id {
			g.mine = slot{exists: true, created: kv.CreateRevision, lease: clientv3.LeaseID(kv.Lease), since: since}
		}
	}
	return g, nil
}

func parseMax(text string) (int, error) {
	text = strings.TrimSpace(text)
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > maxHolders {
		return 0, fault.New(fault.Input, "%.20q is not a number of slots from 0 to %d (set it with: etcdctl put KEY 1)", text, maxHolders)
	}
	return int(n), nil
}

// holderValue is a slot's value.
type holderValue struct {
	Since time.Time `json:"since"`
}

const maxHolderValue = 4 << 10

func encodeHolder(since time.Time) string {
	b, err := json.Marshal(holderValue{Since: since.UTC().Truncate(time.Second)})
	if err != nil { // a year of five digits
		return "{}"
	}
	return string(b)
}

// decodeHolder reads a slot's value. It is for messages alone, so nothing is wrong with one that another program wrote.
func decodeHolder(value []byte) time.Time {
	var v holderValue
	if len(value) > maxHolderValue || json.Unmarshal(value, &v) != nil {
		return time.Time{}
	}
	return v.Since
}

// printable is for foreign text in messages.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return s
}
