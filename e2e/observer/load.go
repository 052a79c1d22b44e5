package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxInFlight bounds the requests of one service; one beyond it is not sent and counts as a timeout.
const maxInFlight = 4096

// load sends to one service at a fixed rate, whatever the answers do.
type load struct {
	service string
	url     string
	rate    float64
	timeout time.Duration // from the intended time
	client  *http.Client
	ids     *atomic.Int64 // shared by all services: an id is used once

	mu      sync.Mutex
	samples []sample // guarded by mu
}

func newLoad(service, url string, rate float64, timeout time.Duration, ids *atomic.Int64) *load {
	transport := &http.Transport{MaxIdleConnsPerHost: maxInFlight, DisableCompression: true, DialContext: (&net.Dialer{}).DialContext}
	return &load{service: service, url: url, rate: rate, timeout: timeout, ids: ids, client: &http.Client{Transport: transport}}
}

// run sends until stop is closed and waits for what is in flight.
func (l *load) run(stop <-chan struct{}) {
	defer l.client.CloseIdleConnections()
	var inFlight sync.WaitGroup
	defer inFlight.Wait()
	slots := make(chan struct{}, maxInFlight)
	interval := time.Duration(float64(time.Second) / l.rate)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for due := time.Now().Add(interval); ; due = due.Add(interval) {
		timer.Reset(time.Until(due))
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		s := sample{ID: fmt.Sprintf("obs-%d", l.ids.Add(1)), Service: l.service, Intended: due}
		select {
		case slots <- struct{}{}:
		default:
			s.Class, s.Error, s.Ended = classTimeout, "not sent: too many in flight", time.Now()
			l.keep(s)
			continue
		}
		inFlight.Go(func() {
			l.send(&s)
			l.keep(s)
			<-slots
		})
	}
}

func (l *load) keep(s sample) {
	s.Intended, s.Sent, s.Ended = s.Intended.UTC().Round(0), s.Sent.UTC().Round(0), s.Ended.UTC().Round(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, s)
}

func (l *load) send(s *sample) {
	ctx, cancel := context.WithDeadline(context.Background(), s.Intended.Add(l.timeout))
	defer cancel()
	s.Sent = time.Now()
	defer func() { s.Ended = time.Now() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
	if err != nil {
		s.Class, s.Error = classReset, err.Error()
		return
	}
	req.Header.Set("x-request-id", s.ID)
	resp, err := l.client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	if err != nil {
		s.Class, s.Error = classOf(err), err.Error()
		return
	}
	s.Status = resp.StatusCode
	s.Site, s.Instance, s.Attempts = resp.Header.Get("x-site"), resp.Header.Get("x-instance"), resp.Header.Get("x-envoy-attempt-count")
	switch {
	case s.Status == http.StatusServiceUnavailable && resp.Header.Get("x-livefire-shed") != "":
		s.Class = classShed
	case s.Status >= 400:
		s.Class, s.Error = classStatus, resp.Header.Get("x-livefire-flags")
	case s.Status != http.StatusOK || s.Site == "":
		s.Class = classWrong
	case s.Attempts != "" && s.Attempts != "1":
		s.Class = classRetried
	default:
		s.Class = classOK
	}
}

func classOf(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return classTimeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return classRefused
	}
	return classReset
}
