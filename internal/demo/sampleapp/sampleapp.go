// Package sampleapp is the sample service of the demo: a plain HTTP server that says who it is and writes down what it executes.
//
// GET / and POST / answer 200 after ?delay=20ms if asked, with x-site, x-instance and x-version. Each x-request-id is
// written to a file, one write per request, before the answer: so executions are counted, not assumed.
//
// Units: delay is a duration of at most 30 s.
// Errors: Run returns what made it stop other than its context.
// Concurrency: Run blocks and owns its goroutines.
package sampleapp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// maxDelay bounds what a caller may ask for.
const maxDelay = 30 * time.Second

// Config of one instance.
type Config struct {
	Listen     string // host:port
	Site       string
	Instance   string
	Version    string
	RequestLog string // file that gets one line per executed request id; empty = none
}

// Run serves until ctx ends, then lets requests in flight finish for up to 5 s.
func Run(ctx context.Context, cfg Config) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	handler, closeLog, err := newHandler(cfg)
	if err != nil {
		_ = listener.Close() // the error of the log is the one to report
		return err
	}
	defer closeLog()
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", cfg.Listen, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = srv.Shutdown(grace)
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}

func newHandler(cfg Config) (http.Handler, func(), error) {
	executed := func(string) error { return nil }
	closeLog := func() {}
	if cfg.RequestLog != "" {
		// O_APPEND: one write is one line, also from several processes.
		f, err := os.OpenFile(cfg.RequestLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("open request log: %w", err)
		}
		closeLog = func() { _ = f.Close() } // every line was its own write; nothing is buffered
		executed = func(id string) error {
			_, err := f.WriteString(id + "\n")
			return err
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	answer := answerer(cfg, executed)
	mux.HandleFunc("GET /{$}", answer)
	mux.HandleFunc("POST /{$}", answer)
	return mux, closeLog, nil
}

func answerer(cfg Config, executed func(string) error) http.HandlerFunc {
	body, err := json.Marshal(map[string]string{"site": cfg.Site, "instance": cfg.Instance, "version": cfg.Version})
	if err != nil {
		panic("internal error: encode three strings: " + err.Error())
	}
	body = append(body, '\n')
	return func(w http.ResponseWriter, r *http.Request) {
		delay, err := parseDelay(r.URL.Query().Get("delay"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if id := r.Header.Get("X-Request-Id"); id != "" && !strings.ContainsAny(id, "\r\n") {
			if err := executed(id); err != nil {
				http.Error(w, "request log: "+err.Error(), http.StatusInternalServerError)
				return
			}
		}
		if delay > 0 {
			wait := time.NewTimer(delay)
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-r.Context().Done():
				return
			}
		}
		h := w.Header()
		h.Set("X-Site", cfg.Site)
		h.Set("X-Instance", cfg.Instance)
		h.Set("X-Version", cfg.Version)
		h.Set("Content-Type", "application/json")
		_, _ = w.Write(body) // a caller that is gone needs no answer
	}
}

func parseDelay(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxDelay {
		return 0, fmt.Errorf("delay %q: write a duration between 0s and %v, for example ?delay=20ms", s, maxDelay)
	}
	return d, nil
}
