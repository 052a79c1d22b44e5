package store_test

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/internal/server/store"
)

// Not parallel: it looks at every goroutine of the process.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	s, err := store.Open(within(t), store.Config{Dir: t.TempDir(), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	watched, led := make(chan error, 1), make(chan error, 1)
	started := make(chan struct{}, 2)
	go func() {
		watched <- s.Watch(ctx, "/", func(b store.Batch) error {
			if b.Snapshot {
				started <- struct{}{}
			}
			return nil
		})
	}()
	go func() {
		led <- s.Lead(ctx, "loop", "a", store.MinTTL, func(ctx context.Context, _ store.Fence) error {
			started <- struct{}{}
			<-ctx.Done()
			return nil
		})
	}()
	receive(t, started, "start")
	receive(t, started, "start")
	cancel()
	receive(t, watched, "end of the watch")
	receive(t, led, "end of the term")
	if len(strayGoroutines()) == 0 {
		t.Fatal("an open store seems to have no goroutine: this test cannot fail")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	left := strayGoroutines()
	for end := time.Now().Add(10 * time.Second); len(left) > 0 && time.Now().Before(end); left = strayGoroutines() {
		runtime.Gosched() // a goroutine that has been told to end may still be on its way
	}
	for _, g := range left {
		t.Errorf("left running:\n%s", g)
	}
}

// strayGoroutines are all but the test's own. etcd 3.7 leaves none of its own either.
func strayGoroutines() []string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for _, g := range strings.Split(string(buf), "\n\n")[1:] { // the first is this one
		if strings.Contains(g, "testing.(*T).Run") || strings.Contains(g, "testing.runTests") || strings.Contains(g, "testing.(*M)") {
			continue
		}
		out = append(out, g)
	}
	return out
}
