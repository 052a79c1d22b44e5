package proxy

import (
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/livefire-mesh/livefire/internal/mesh/proxy/outlier"
)

// metrics have labels that are bounded by the table and by the code; never a path, an address or a peer.
type metrics struct {
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	retries   *prometheus.CounterVec
	ejections *prometheus.CounterVec
	checks    *prometheus.CounterVec
	reflexes  *prometheus.CounterVec
	tables    *prometheus.CounterVec
	endpoints *prometheus.GaugeVec
	inFlight  *prometheus.GaugeVec
	epoch     prometheus.Gauge
	logErrors prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "livefire_proxy_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "livefire_proxy_" + name, Help: help}, labels)
	}
	m := &metrics{
		requests: counter("requests_total", "Requests that have ended, by class of status and first response flag.", "direction", "service", "site", "class", "flag"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "livefire_proxy_request_seconds", Help: "From the request's head to the end of the response.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15}}, []string{"direction", "service"}),
		retries:   counter("retries_total", "Retries, made or refused by the budget.", "service", "cause", "outcome"),
		ejections: counter("ejections_total", "Endpoints that were lost.", "service", "site", "cause"),
		checks:    counter("checks_total", "Active checks that have ended.", "service", "site", "result"),
		reflexes:  counter("reflexes_total", "Times that traffic left a site by reflex.", "service", "site"),
		tables:    counter("tables_total", "Tables that were offered.", "result"),
		endpoints: gauge("endpoints", "Endpoints in the table in force.", "service", "site", "state"),
		inFlight:  gauge("requests_in_flight", "Requests in flight at the last look.", "direction"),
		epoch:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "livefire_proxy_table_epoch", Help: "Epoch of the table in force."}),
		logErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "livefire_proxy_access_log_errors_total", Help: "Lines that could not be written."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.retries, m.ejections, m.checks, m.reflexes, m.tables, m.endpoints, m.inFlight, m.epoch, m.logErrors} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the proxy: %w", err)
		}
	}
	return m, nil
}

// ended counts a request that is over.
func (m *metrics) ended(e *entry) {
	flag := e.Flags
	for i := range flag {
		if flag[i] == ',' {
			flag = flag[:i]
			break
		}
	}
	m.requests.WithLabelValues(e.Direction, string(e.Service), string(e.Site), strconv.Itoa(e.Status/100)+"xx", flag).Inc()
	m.seconds.WithLabelValues(e.Direction, string(e.Service)).Observe(e.Duration.Seconds())
}

// observe sets the gauges from the view in force; series of sites that left the table go.
func (m *metrics) observe(p *Proxy) {
	m.inFlight.WithLabelValues(directionOut).Set(float64(p.out.inFlight.Load()))
	m.inFlight.WithLabelValues(directionIn).Set(float64(p.in.inFlight.Load()))
	v := p.current.Load()
	if v == nil {
		return
	}
	m.endpoints.Reset()
	for _, s := range v.services {
		for _, st := range s.sites {
			var n [3]int
			for _, e := range st.endpoints {
				state := outlier.State(e.state.Load())
				if !e.registered.Load() {
					state = outlier.Unusable
				}
				n[state]++
			}
			for state, name := range map[outlier.State]string{outlier.Unknown: "unknown", outlier.Usable: "usable", outlier.Unusable: "unusable"} {
				m.endpoints.WithLabelValues(string(s.spec.Name), string(st.spec.Name), name).Set(float64(n[state]))
			}
		}
	}
}
