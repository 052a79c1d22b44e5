package sampleapp

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func handler(t *testing.T, log string) http.Handler {
	t.Helper()
	h, closeLog, err := newHandler(Config{Site: "eu-west", Instance: "eu-payments-1", Version: "v1", RequestLog: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeLog)
	return h
}

func TestAnswersWithItsNameForGetAndPost(t *testing.T) {
	h := handler(t, "")
	for _, method := range []string{"GET", "POST"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		if w.Code != 200 || w.Header().Get("x-site") != "eu-west" || w.Header().Get("x-instance") != "eu-payments-1" ||
			w.Header().Get("x-version") != "v1" || !strings.Contains(w.Body.String(), "eu-payments-1") {
			t.Errorf("%s / = %d %v %q", method, w.Code, w.Header(), w.Body)
		}
	}
}

// "writes each x-request-id that it executes to a file with one write before the answer"
func TestRequestIDIsInTheLogBeforeTheAnswer(t *testing.T) {
	log := filepath.Join(t.TempDir(), "requests.log")
	h := handler(t, log)
	for _, id := range []string{"a", "b", "a"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("x-request-id", id)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	got, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != "a\nb\na\n" {
		t.Errorf("log = %q, want a, b, a", got)
	}
}

func TestDelayIsExact(t *testing.T) {
	h := handler(t, "")
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/?delay=20ms", nil))
		if d := time.Since(start); d != 20*time.Millisecond {
			t.Errorf("answered after %v, want 20ms", d)
		}
	})
}

func TestBadDelayIsRefused(t *testing.T) {
	h := handler(t, "")
	for _, q := range []string{"x", "-1s", "31s"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/?delay="+q, nil))
		if w.Code != 400 {
			t.Errorf("delay=%s: %d, want 400", q, w.Code)
		}
	}
}
