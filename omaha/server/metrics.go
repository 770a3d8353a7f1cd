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
	counts map[string]int64
}

func newMetrics() metrics { return metrics{new(sync.Mutex), map[string]int64{}} }

var metricHelp = map[string]string{
	"semper_server_requests_total": "HTTP requests answered, by route and status.",
	"semper_server_checks_total":   "Update checks decided, by the rule that decided.",
	"semper_server_events_total":   "Events that machines reported, by type and result.",
	"semper_server_limited_total":  "Requests refused with 429, by what there was too much of.",
	"semper_server_refused_total":  "Failed authentications, of machines and of tokens.",
}

// maxSeries bounds the counters, whatever a client invents for an event's type.
const maxSeries = 1000

func (m metrics) add(name string, labels ...string) {
	pairs := make([]string, 0, len(labels)/2)
	for i := 0; i+1 < len(labels); i += 2 {
		pairs = append(pairs, labels[i]+"="+strconv.Quote(labels[i+1]))
	}
	series := name + "{" + strings.Join(pairs, ",") + "}"
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.counts[series]; known || len(m.counts) < maxSeries {
		m.counts[series]++
	}
}

func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) {
	s.metrics.mu.Lock()
	counts := maps.Clone(s.metrics.counts)
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
