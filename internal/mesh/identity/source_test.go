package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
)

// bubbleStart is when the clock of a synctest bubble begins.
var bubbleStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// signer renews by a CA in the same process, with certificates of a fixed life.
func signer(ca *CA, id ID, ttl time.Duration) Renewer {
	return func(_ context.Context, csr []byte) ([]byte, []byte, error) {
		chain, err := ca.Sign(csr, id, time.Now(), SignOptions{TTL: ttl})
		return chain, ca.Roots(), err
	}
}

// Renewal comes at half life; a failure is followed by pauses of 1, 2, 4 ... at most 60 s; a success by half a life again.
func TestRotateRenewsAtHalfLife(t *testing.T) {
	ca := newCA(t, domain, bubbleStart)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		src := NewSource(issueAt(t, ca, payments, start, DefaultTTL))
		first, changed := src.Next()
		var asked []time.Duration
		sign := signer(ca, payments, DefaultTTL)
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		err := src.Rotate(ctx, slog.New(slog.DiscardHandler), "", func(ctx context.Context, csr []byte) ([]byte, []byte, error) {
			asked = append(asked, time.Since(start))
			switch n := len(asked); {
			case n <= 9:
				return nil, nil, errors.New("the server does not answer")
			case n == 10:
				return sign(ctx, csr)
			default:
				cancel(stop)
				return nil, nil, context.Cause(ctx)
			}
		})
		if !errors.Is(err, stop) {
			t.Errorf("Rotate = %v, want its cause", err)
		}
		half := 12 * time.Hour
		var want []time.Duration
		at := half
		for _, pause := range []int{0, 1, 2, 4, 8, 16, 32, 60, 60, 60} {
			at += time.Duration(pause) * time.Second
			want = append(want, at)
		}
		want = append(want, at+half)
		if diff := cmp.Diff(want, asked); diff != "" {
			t.Errorf("asked at (-want +got):\n%s", diff)
		}
		select {
		case <-changed:
		default:
			t.Errorf("the change was not announced")
		}
		if src.Current() == first || src.Current().key.private.Equal(first.key.private) {
			t.Errorf("the certificate in force is the old one, or has the old key")
		}
	})
}

func TestWrongRenewalChangesNothing(t *testing.T) {
	ca, stranger := newCA(t, domain, time.Now()), newCA(t, domain, time.Now())
	src := NewSource(issue(t, ca, payments))
	first := src.Current()
	foreign := signer(stranger, payments, time.Hour)
	for _, tt := range []struct {
		name  string
		renew Renewer
		ok    bool
	}{
		{"another identity", signer(ca, orders, time.Hour), false},
		{"another key", func(context.Context, []byte) ([]byte, []byte, error) { return first.ChainPEM(), first.RootsPEM(), nil }, false},
		{"roots that do not vouch for it", func(ctx context.Context, csr []byte) ([]byte, []byte, error) {
			chain, _, err := foreign(ctx, csr)
			return chain, ca.Roots(), err
		}, false},
		{"an error", func(context.Context, []byte) ([]byte, []byte, error) {
			return nil, nil, api.Errorf(api.Denied, "", "no")
		}, false},
		{"a good one", signer(ca, payments, time.Hour), true},
	} {
		dir := t.TempDir()
		err := src.Renew(t.Context(), dir, tt.renew)
		if (err == nil) != tt.ok || (src.Current() != first) != tt.ok {
			t.Errorf("%s: Renew = %v, changed %t, want renewed: %t", tt.name, err, src.Current() != first, tt.ok)
		}
		if v, err := LoadSVID(dir); tt.ok && (err != nil || !v.NotAfter().Equal(src.Current().NotAfter())) {
			t.Errorf("%s: LoadSVID = %v, want the one in force", tt.name, err)
		}
	}
}

// While both sides renew beside the requests, and the authority changes in between, every request of every connection succeeds.
func TestRotationUnderLoadDropsNothing(t *testing.T) {
	old, next := newCA(t, domain, time.Now()), newCA(t, domain, time.Now())
	bothRoots := append(old.Roots(), next.Roots()...)
	authority := atomic.Pointer[CA]{}
	authority.Store(old)
	renewer := func(id ID) Renewer {
		return func(_ context.Context, csr []byte) ([]byte, []byte, error) {
			chain, err := authority.Load().Sign(csr, id, time.Now(), SignOptions{})
			return chain, bothRoots, err
		}
	}
	server, client := NewSource(issue(t, old, orders)), NewSource(issue(t, old, payments))
	for src, id := range map[*Source]ID{server: orders, client: payments} {
		if err := src.Renew(t.Context(), "", renewer(id)); err != nil { // from here on both know both roots
			t.Fatal(err)
		}
	}
	url := serve(t, ServerTLS(server, Exactly(payments), "h2", "http/1.1"), func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto)
	})

	asked := make(chan struct{}, 1) // a request was made: renew beside the next one
	var rotations, load sync.WaitGroup
	for src, id := range map[*Source]ID{server: orders, client: payments} {
		rotations.Go(func() {
			for range asked {
				if err := src.Renew(t.Context(), "", renewer(id)); err != nil {
					t.Errorf("Renew(%s) = %v", id, err)
					return
				}
			}
		})
	}
	var done atomic.Int64
	for worker := range 4 {
		load.Go(func() {
			tr := &http.Transport{TLSClientConfig: ClientTLS(client, Exactly(orders)), DisableKeepAlives: worker%2 == 0, ForceAttemptHTTP2: worker%2 == 1}
			defer tr.CloseIdleConnections()
			for n := range 50 {
				if worker == 0 && n == 25 {
					authority.Store(next)
					for src, id := range map[*Source]ID{server: orders, client: payments} {
						if err := src.Renew(t.Context(), "", renewer(id)); err != nil {
							t.Errorf("Renew(%s) under the next authority = %v", id, err)
						}
					}
				}
				if err := ask(tr, url); err != nil {
					t.Errorf("request %d of worker %d: %v", n, worker, err)
					return
				}
				done.Add(1)
				select {
				case asked <- struct{}{}:
				default: // both are busy renewing
				}
			}
		})
	}
	load.Wait()
	close(asked)
	rotations.Wait()
	if done.Load() != 200 {
		t.Errorf("%d requests of 200 succeeded", done.Load())
	}
}

func ask(tr *http.Transport, url string) error {
	resp, err := (&http.Client{Transport: tr, Timeout: limit}).Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if want := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[tr.ForceAttemptHTTP2]; string(body) != want {
		return fmt.Errorf("the server heard %s, want %s", body, want)
	}
	return nil
}
