package probe

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

func TestAnswerDecidesTheClass(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   sample.Sample
	}{
		{"ok", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("x-livefire-workload", "eu/payments-1@v2@x")
			w.Header().Set("x-envoy-attempt-count", "3")
			w.Header().Set("x-instance", "payments-1")
		}, sample.Sample{Class: sample.OK, Code: 200, Attempts: 3, Site: "eu", Workload: "payments-1@v2", Version: "x", Instance: "payments-1"}},
		{"status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, sample.Sample{Class: sample.Status, Code: 404}},
		{"unavailable", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, sample.Sample{Class: sample.Status, Code: 503}},
		{"shed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("x-livefire-shed", "1")
			w.WriteHeader(503)
		}, sample.Sample{Class: sample.Shed, Code: 503}},
		{"redirect is an answer", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) }, sample.Sample{Class: sample.OK, Code: 302}},
		{"reset", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, sample.Sample{Class: sample.Reset}},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, sample.Sample{Class: sample.Reset, Code: 200}},
		{"timeout", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, sample.Sample{Class: sample.Timeout}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSink(t)
			p, _ := begin(t, Config{Target: serve(t, c.answer), Upload: s.upload})
			o := order(50, time.Minute)
			o.Timeout = 500 * time.Millisecond
			o.Lease = 100 * time.Millisecond
			if err := p.Start(o); err != nil {
				t.Fatal(err)
			}
			all := s.all()
			if len(all) == 0 {
				t.Fatal("no samples")
			}
			for _, x := range all {
				if c.want.Class == sample.Timeout && x.End < o.Timeout {
					t.Errorf("timed out after %v, want at least %v", x.End, o.Timeout)
				}
				got := sample.Sample{Class: x.Class, Code: x.Code, Attempts: x.Attempts, Site: x.Site, Workload: x.Workload, Version: x.Version, Instance: x.Instance}
				if d := cmp.Diff(c.want, got); d != "" {
					t.Fatalf("sample %d (-want +got):\n%s", x.Seq, d)
				}
			}
		})
	}
}

func TestRefusedConnectionIsItsOwnClass(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for name, target := range map[string]func(api.ServiceID) (string, bool){
		"port closed": func(api.ServiceID) (string, bool) { return "http://" + l.Addr().String(), true },
		"no port":     func(api.ServiceID) (string, bool) { return "", false },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSink(t)
			p, _ := begin(t, Config{Target: target, Upload: s.upload})
			if err := p.Start(order(50, 200*time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			all := s.all()
			if got := classes(all); got[sample.Refused] != len(all) || len(all) == 0 {
				t.Errorf("classes = %v, want all refused", got)
			}
		})
	}
}

// A GET over a kept connection that breaks must not be sent again behind our back: the break must show, and an
// execution must not count twice.
func TestBrokenConnectionIsNotRetriedSilently(t *testing.T) {
	seen := newIDs()
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if seen.add(r)%2 == 0 {
			panic(http.ErrAbortHandler)
		}
	})
	s := newSink(t)
	p, _ := begin(t, Config{Target: target, Upload: s.upload})
	if err := p.Start(order(20, time.Minute)); err != nil {
		t.Fatal(err)
	}
	seen.until(t, 10)
	p.Stop(order(1, 1).ID)
	all := s.all()
	got := classes(all)
	if got[sample.Reset] < 4 || got[sample.Reset]+got[sample.OK] != len(all) {
		t.Errorf("classes = %v of %d, want about half of them reset", got, len(all))
	}
	for id, n := range seen.count() {
		if n != 1 {
			t.Errorf("request %s was sent %d times", id, n)
		}
	}
}

func TestWorkloadHeaderIsRead(t *testing.T) {
	for _, c := range []struct{ header, want string }{
		{"eu/payments-1@v2", "eu|payments-1|v2"},
		{"eu/payments-1@", "eu|payments-1|"},
		{"eu/payments-1", "eu|payments-1|"},
		{"payments-1", "||"},
		{"", "||"},
		{"eu/a/b@v", "eu|a/b|v"},
	} {
		s, w, v := parseWorkload(c.header)
		if got := fmt.Sprintf("%s|%s|%s", s, w, v); got != c.want {
			t.Errorf("parseWorkload(%q) = %s, want %s", c.header, got, c.want)
		}
	}
}

// Whatever a server writes into its headers, the chunk stays one that the server of livefire accepts.
func FuzzWorkloadHeader(f *testing.F) {
	f.Add("eu/payments-1@v2", "x")
	f.Add("\xff/\xfe@", strings.Repeat("é", 600))
	f.Fuzz(func(t *testing.T, header, msg string) {
		s, w, v := parseWorkload(header)
		c := sample.Chunk{Header: sample.Header{Format: sample.Format, Order: "o", Service: "s", From: "f", Rate: 1}}
		c.Samples = []sample.Sample{{
			Intended: time.Unix(0, 0).UTC(), Class: sample.OK, Site: s, Workload: w, Version: v,
			Instance: clipBytes(msg, maxName), Err: clipRunes(msg, maxErr),
		}}
		if _, err := sample.DecodeChunk(sample.EncodeChunk(c)); err != nil {
			t.Errorf("header %s: %v", strconv.Quote(header), err)
		}
	})
}
