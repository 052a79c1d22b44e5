package xdsclient

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

func TestConfigurationIsChecked(t *testing.T) {
	node := xds.NodeMessage(testNode, testCaps)
	take := (&sink{}).take
	for name, cfg := range map[string]Config{
		"no server":   {Node: node, Table: take},
		"no node":     {Servers: []string{"a"}, Table: take},
		"no callback": {Servers: []string{"a"}, Node: node},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: New = nil, want an error", name)
		}
	}
}

func TestBackOffIsBetween50msAnd1s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{t: t}
		run(t, h, Config{Table: (&sink{}).take})
		time.Sleep(time.Minute)
		synctest.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := len(h.dials); n < 60 || n > 130 {
			t.Errorf("attempts in a minute = %d, want 60 to 130", n)
		}
		for i := 1; i < len(h.dials); i++ {
			gap := h.dials[i].Sub(h.dials[i-1])
			if least := 100 * time.Millisecond; gap < least || gap > time.Second {
				t.Errorf("attempt %d came after %v, want 100ms to 1s", i, gap)
			}
		}
	})
}

func TestServersAreTriedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, out := &host{t: t}, &sink{}
		two := &fake{streams: make(chan *fakeStream, 10)}
		h.start("two", two)
		one := &fake{streams: make(chan *fakeStream, 10)}
		stop := h.start("one", one)
		c := run(t, h, Config{Table: out.take, Servers: []string{"one", "two"}})
		s := <-one.streams
		s.t = t
		r := render(t, testTable(1, "a"))
		s.table(r, nil)
		synctest.Wait()
		start := time.Now()
		stop()
		s = <-two.streams
		s.t = t
		if waited := time.Since(start); waited > 100*time.Millisecond {
			t.Errorf("second server after %v, want at once", waited)
		}
		synctest.Wait()
		if !c.Connected() {
			t.Error("Connected = false")
		}
		s.table(render(t, testTable(2, "a")), r)
		synctest.Wait()
		equal(t, "epochs", out.epochs(), []route.Epoch{1, 2})
	})
}

func TestStoppedServerIsLeftWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{t: t}
		f := &fake{streams: make(chan *fakeStream, 10)}
		h.start("one", f)
		c := run(t, h, Config{Table: (&sink{}).take})
		<-f.streams
		time.Sleep(time.Minute)
		synctest.Wait()
		h.mu.Lock()
		if n := len(h.dials); n != 1 || !c.Connected() {
			t.Fatalf("dials in an idle minute = %d, connected = %v; want 1, true", n, c.Connected())
		}
		conn := h.conns[0]
		h.mu.Unlock()
		close(conn.frozen)
		start := time.Now()
		<-f.streams
		if waited := time.Since(start); waited > 1250*time.Millisecond {
			t.Errorf("new stream after %v, want within 1s and the first back-off", waited)
		}
	})
}
