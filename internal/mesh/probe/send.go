package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// Headers of an answer; docs/spec/channels.md.
const (
	headerRequest  = "X-Request-Id"
	headerWorkload = "X-Livefire-Workload"
	headerAttempts = "X-Envoy-Attempt-Count"
	headerShed     = "X-Livefire-Shed"
	headerInstance = "X-Instance"
)

const (
	maxBody = 1 << 20 // of an answer; more is cut off
	maxErr  = 120     // characters
	maxName = 512     // bytes
)

// newTransport makes HTTP/1.1 connections that are kept alive and never used to send a request twice.
func newTransport(inFlight int) *http.Transport {
	t := &http.Transport{
		DialContext:         (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext,
		DisableCompression:  true,
		MaxIdleConnsPerHost: inFlight,
		IdleConnTimeout:     30 * time.Second,
		Protocols:           new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// once is an empty body that cannot be had a second time. With it net/http does not repeat a GET over a connection
// that broke: the sample must show the break, and an execution must not count twice.
type once struct{}

func (once) Read([]byte) (int, error) { return 0, io.EOF }
func (once) Close() error             { return nil }

// send makes one request and says what came of it. ok is false if the Prober ended first: then nothing is known.
func (p *probe) send(ctx context.Context, s sample.Sample, due time.Time) (out sample.Sample, ok bool) {
	reqCtx, cancel := context.WithDeadline(ctx, due.Add(p.order.Timeout))
	defer cancel()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-reqCtx.Done():
		if ctx.Err() != nil {
			return s, false
		}
		s.Start = max(time.Since(due), 0)
		s.End, s.Class = s.Start, sample.Timeout
		s.Err = fmt.Sprintf("not sent: %d requests in flight", cap(p.slots))
		return s, true
	}
	s.Start = max(time.Since(due), 0)
	err := p.request(reqCtx, &s)
	s.End = max(time.Since(due), s.Start)
	if err != nil {
		if ctx.Err() != nil {
			return s, false
		}
		s.Class, s.Err = classOf(err), clipRunes(err.Error(), maxErr)
	}
	return s, true
}

// request fills in what the answer says. An error means that there was none, or not all of it.
func (p *probe) request(ctx context.Context, s *sample.Sample) error {
	base, ok := p.target(p.order.Service)
	if !ok {
		return fmt.Errorf("no client sidecar has a port for %s: %w", p.order.Service, syscall.ECONNREFUSED)
	}
	req, err := http.NewRequestWithContext(ctx, p.order.Method, strings.TrimSuffix(base, "/")+p.order.Path, nil)
	if err != nil {
		return err
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		req.Body = once{}
	}
	req.Header.Set(headerRequest, s.Request)
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	s.Code = resp.StatusCode
	s.Site, s.Workload, s.Version = parseWorkload(resp.Header.Get(headerWorkload))
	s.Instance = clipBytes(resp.Header.Get(headerInstance), maxName)
	if n, err := strconv.Atoi(resp.Header.Get(headerAttempts)); err == nil && n > 0 {
		s.Attempts = n
	}
	switch {
	case s.Code == http.StatusServiceUnavailable && resp.Header.Get(headerShed) != "":
		s.Class = sample.Shed
	case s.Code >= 400:
		s.Class = sample.Status
	default:
		s.Class = sample.OK
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody))
	return err
}

func classOf(err error) sample.Class {
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return sample.Timeout
	case errors.Is(err, syscall.ECONNREFUSED):
		return sample.Refused
	}
	return sample.Reset
}

// parseWorkload reads "<site>/<workload>@<version>". What is not there is empty.
func parseWorkload(h string) (site api.SiteID, workload, version string) {
	h = clipBytes(h, maxName)
	s, rest, ok := strings.Cut(h, "/")
	if !ok {
		return "", "", ""
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		return api.SiteID(s), rest[:i], rest[i+1:]
	}
	return api.SiteID(s), rest, ""
}

func clipBytes(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

func clipRunes(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n])
}
