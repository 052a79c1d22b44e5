package api

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Protocols and data of a service.
const (
	HTTP = "http"
	GRPC = "grpc"
	TCP  = "tcp"

	Stateless = "stateless"
	Stateful  = "stateful"
)

// retryReasons are the words that retries.on may hold.
var retryReasons = []string{"connect", "reset", "refused", "502", "503", "504"}

func (o *Service) TypeOf() Type    { return Type{Version, KindService} }
func (o *Service) Meta() *Metadata { return &o.Metadata }

func (o *Service) Default() {
	setType(o)
	s := &o.Spec
	setZero(&s.Protocol, HTTP)
	setZero(&s.Port, 80)
	if s.Hosts == nil && o.Metadata.Name != "" {
		s.Hosts = []string{o.Metadata.Name + ".mesh"}
	}
	if a := s.Objectives.Availability; a != nil {
		setZero(&a.Window, Duration(30*24*time.Hour))
	}
	setZero(&s.Health.Path, "/healthz")
	setZero(&s.Health.Interval, Duration(500*time.Millisecond))
	setZero(&s.Health.Timeout, Duration(300*time.Millisecond))
	setZero(&s.Health.Failures, 3)
	setZero(&s.Health.Successes, 2)
	setZero(&s.Timeouts.Request, Duration(15*time.Second))
	setZero(&s.Timeouts.Idle, Duration(5*time.Minute))
	if s.Retries.On == nil {
		s.Retries.On = slices.Clone(retryReasons)
	}
	setZero(&s.Retries.Attempts, 3)
	setZero(&s.Retries.Budget, 0.2)
	setZero(&s.Limits.Connections, 1024)
	setZero(&s.Limits.Pending, 1024)
	setZero(&s.Limits.Requests, 1024)
}

func (o *Service) Validate() []Problem {
	var c checker
	c.object(o)
	s := o.Spec
	c.oneOf("$.spec.protocol", s.Protocol, HTTP, GRPC, TCP)
	c.count("$.spec.port", s.Port, 1, 65535)
	c.hosts(s.Hosts)
	c.oneOf("$.spec.data", s.Data, Stateless, Stateful)
	c.objectives(s)
	c.health(s.Health)
	c.timeouts(s.Timeouts)
	c.retries(s.Retries)
	const many = 1 << 20
	c.count("$.spec.limits.connections", s.Limits.Connections, 1, many)
	c.count("$.spec.limits.pending", s.Limits.Pending, 1, many)
	c.count("$.spec.limits.requests", s.Limits.Requests, 1, many)
	for i, j := range s.Residency {
		if strings.TrimSpace(j) == "" || slices.Contains(s.Residency[:i], j) {
			c.add(CodeList, index("$.spec.residency", i), "name each jurisdiction once, as the sites do", "%q is empty or named twice", j)
		}
	}
	c.names("$.spec.dependsOn", texts(s.DependsOn))
	if i := slices.Index(s.DependsOn, ServiceID(o.Metadata.Name)); i >= 0 {
		c.add(CodeValue, index("$.spec.dependsOn", i), "remove it", "the service depends on itself")
	}
	return c.problems
}

func (c *checker) hosts(hosts []string) {
	for i, h := range hosts {
		if len(h) > 253 || !host.MatchString(h) {
			c.add(CodeName, index("$.spec.hosts", i), "for example payments.mesh", "%q is not a host name", h)
		}
		if slices.Contains(hosts[:i], h) {
			c.add(CodeList, index("$.spec.hosts", i), "remove one of them", "%q is named twice", h)
		}
	}
}

func (c *checker) objectives(s ServiceSpec) {
	const path = "$.spec.objectives"
	o := s.Objectives
	if o.RTO != nil {
		c.positive(path+".rto", *o.RTO)
	}
	if o.RPO != nil {
		if *o.RPO < 0 {
			c.add(CodeValue, path+".rpo", "0s promises that nothing is lost", "%s is negative", *o.RPO)
		}
		if s.Data == Stateless {
			c.add(CodeRPO, path+".rpo", "remove rpo, or write data: stateful", "a stateless service has no data to lose")
		}
	}
	if o.Success != nil {
		c.ratio(path+".success", *o.Success)
	}
	if o.Latency != nil {
		c.positive(path+".latency.p99", o.Latency.P99)
	}
	if a := o.Availability; a != nil {
		c.ratio(path+".availability.target", a.Target)
		c.positive(path+".availability.window", a.Window)
	}
}

func (c *checker) health(h HealthCheck) {
	const path = "$.spec.health"
	c.urlPath(path+".path", h.Path)
	c.span(path+".interval", h.Interval, Duration(10*time.Millisecond), Duration(5*time.Minute))
	c.positive(path+".timeout", h.Timeout)
	if h.Timeout > h.Interval {
		c.add(CodeTimeout, path+".timeout", "write timeout too, at most the interval", "timeout %s is longer than interval %s: checks would overlap", h.Timeout, h.Interval)
	}
	c.count(path+".failures", h.Failures, 1, 100)
	c.count(path+".successes", h.Successes, 1, 100)
}

func (c *checker) urlPath(path, p string) {
	if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, " \t\r\n#") {
		c.add(CodeValue, path, "for example /healthz", "%q is not a path", p)
	}
}

func (c *checker) timeouts(t Timeouts) {
	const path = "$.spec.timeouts"
	c.positive(path+".request", t.Request)
	c.positive(path+".idle", t.Idle)
	switch {
	case t.Try < 0:
		c.add(CodeValue, path+".try", "0s = no fixed limit", "%s is negative", t.Try)
	case t.Try > t.Request && t.Request > 0:
		c.add(CodeTimeout, path+".try", "at most timeouts.request", "one try (%s) would be longer than the whole request (%s)", t.Try, t.Request)
	}
}

func (c *checker) retries(r Retries) {
	const path = "$.spec.retries"
	for i, on := range r.On {
		c.oneOf(index(path+".on", i), on, retryReasons...)
		if slices.Contains(r.On[:i], on) {
			c.add(CodeList, index(path+".on", i), "remove one of them", "%q is named twice", on)
		}
	}
	c.count(path+".attempts", r.Attempts, 1, 10)
	c.ratio(path+".budget", r.Budget)
}

// SuccessOr is the success objective, or d if none was written.
func (o Objectives) SuccessOr(d float64) float64 {
	return *cmp.Or(o.Success, &d)
}
