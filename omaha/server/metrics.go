package server

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// metrics counts things by name and labels. The labels' values come from bounded sets only: routes, statuses, rules.
type metrics struct {
	mu     *sync.Mutex
	counts map[series]int64
}

// series is a name with up to two labels and their values; an empty one is not there.
type series struct{ name, label1, value1, label2, value2 string }

func (s series) String() string {
	var labels []string
	for _, l := range [][2]string{{s.label1, s.value1}, {s.label2, s.value2}} {
		if l[0] != "" {
			labels = append(labels, l[0]+"="+strconv.Quote(l[1]))
		}
	}
	return s.name + "{" + strings.Join(labels, ",") + "}"
}

func newMetrics() metrics { return metrics{new(sync.Mutex), map[series]int64{}} }

var metricHelp = map[string]string{
	"semper_server_requests_total": "HTTP requests answered, by route and status.",
	"semper_server_checks_total":   "Update checks decided, by the rule that decided.",
	"semper_server_answers_total":  "Machines' requests answered, by what was needed: memory, a look into the database, or a record in it.",
	"semper_server_events_total":   "Events that machines reported, by type and result.",
	"semper_server_limited_total":  "Requests refused with 429, by what there was too much of.",
	"semper_server_refused_total":  "Failed authentications, of machines and of tokens.",
}

// maxSeries bounds the counters, whatever a client invents for an event's type.
const maxSeries = 1000

// add counts one. Labels are up to two names, each before its value.
func (m metrics) add(name string, labels ...string) {
	key := series{name: name}
	for i, part := range []*string{&key.label1, &key.value1, &key.label2, &key.value2}[:len(labels)] {
		*part = labels[i]
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.counts[key]; known || len(m.counts) < maxSeries {
		m.counts[key]++
	}
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	s.metrics.mu.Lock()
	counts := map[string]int64{}
	for key, n := range s.metrics.counts {
		counts[key.String()] = n
	}
	s.metrics.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	last := ""
	for _, series := range slices.Sorted(maps.Keys(counts)) {
		if name, _, _ := strings.Cut(series, "{"); name != last {
			last = name
			fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s counter\n", name, metricHelp[name], name)
		}
		fmt.Fprintf(w, "%s %d\n", series, counts[series])
	}
	if err := s.serveGauges(r.Context(), w); err != nil {
		s.cfg.Log.Error("metrics lack the fleet", "error", err)
	}
	if err := s.freshnessMetrics(r.Context(), w); err != nil {
		s.cfg.Log.Error("metrics lack the freshness", "error", err)
	}
}

// measured counts what next answers.
func (s *Server) measured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			route := r.Pattern // set by the mux; empty when nothing matched
			if route == "" {
				route = "none"
			}
			s.metrics.add("semper_server_requests_total", "route", route, "status", strconv.Itoa(sw.status))
		}()
		next.ServeHTTP(sw, r)
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection's deadlines.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
