package xdsclient

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
)

func testOrder() xds.Order {
	return xds.FaultOrder(fault.Order{
		ID: "run/01-kill", Run: "run", Kind: fault.Kill, Site: "eu", Services: []api.ServiceID{"orders"},
		MaxTargets: 2, Lease: 3 * time.Second, MaxDuration: time.Hour,
	}, time.Time{})
}

// order sends an order with or without its body.
func (s *fakeStream) order(o xds.Order, body bool) {
	s.nonce++
	x := &discoveryv3.Resource{Name: o.Name, Version: o.Version(), Ttl: durationpb.New(o.TTL)}
	if body {
		x.Resource = o.Body
	}
	m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: o.TypeURL, Nonce: fmt.Sprint(s.nonce), Resources: []*discoveryv3.Resource{x}}
	if err := s.s.Send(m); err != nil {
		s.t.Errorf("send: %v", err)
	}
}

// journal writes down events with the time since it was made.
type journal struct {
	start time.Time
	lines []string
	err   error
}

func (j *journal) take(e OrderEvent) error {
	what := "order"
	switch {
	case e.Expired:
		what = "expired"
	case e.Removed:
		what = "removed"
	case e.Heartbeat:
		what = "heartbeat"
	}
	if (e.Body != nil) != (what == "order") {
		what += " with a body that does not belong there"
	}
	j.lines = append(j.lines, fmt.Sprintf("%v %s %s", time.Since(j.start), what, e.Name))
	return j.err
}

func withOrders(t *testing.T, test func(t *testing.T, s *fakeStream, j *journal)) {
	t.Helper()
	j := &journal{}
	dir := t.TempDir()
	withFake(t, Config{Order: j.take, Dir: dir}, func(t *testing.T, _ *host, s *fakeStream, _ *Client) {
		synctest.Wait()
		s.requests()
		j.start = time.Now()
		test(t, s, j)
	})
	files, err := os.ReadDir(dir)
	if err != nil || len(files) > 0 {
		t.Errorf("files on disk = %v, %v; orders must never be there", files, err)
	}
}

func TestLeaseEndsExactlyAfterTheLastHeartbeat(t *testing.T) {
	withOrders(t, func(t *testing.T, s *fakeStream, j *journal) {
		o := testOrder()
		s.order(o, true)
		for range 3 {
			time.Sleep(time.Second)
			s.order(o, false)
		}
		equal(t, "answers", s.answers(), []string{"ACK 1", "ACK 2", "ACK 3", "ACK 4"})
		time.Sleep(time.Minute)
		synctest.Wait()
		equal(t, "events", j.lines, []string{
			"0s order run/01-kill", "1s heartbeat run/01-kill", "2s heartbeat run/01-kill", "3s heartbeat run/01-kill",
			"6s expired run/01-kill",
		})
	})
}

func TestDeadOrderIsNeverStartedAgain(t *testing.T) {
	withOrders(t, func(t *testing.T, s *fakeStream, j *journal) {
		o := testOrder()
		s.order(o, true)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		s.order(o, false)
		s.order(o, true)
		other := o
		other.TTL++
		s.order(other, true)
		equal(t, "answers", s.answers(), []string{
			"ACK 1", "NACK 2: order run/01-kill: it is not in force",
			"NACK 3: order run/01-kill: its lease has ended", "NACK 4: order run/01-kill: its lease has ended",
		})
		equal(t, "events", j.lines, []string{"0s order run/01-kill", "3s expired run/01-kill"})
	})
}

func TestWithdrawnOrderIsReportedOnce(t *testing.T) {
	withOrders(t, func(t *testing.T, s *fakeStream, j *journal) {
		o := testOrder()
		s.order(o, true)
		synctest.Wait()
		s.send(o.TypeURL, []string{o.Name, "never heard of"})
		s.send(o.TypeURL, []string{o.Name})
		equal(t, "answers", s.answers(), []string{"ACK 1", "ACK 2", "ACK 3"})
		time.Sleep(time.Minute)
		equal(t, "events", j.lines, []string{"0s order run/01-kill", "0s removed run/01-kill"})
	})
}

func TestRefusedOrderIsNotInForce(t *testing.T) {
	withOrders(t, func(t *testing.T, s *fakeStream, j *journal) {
		j.err = errors.New("too many targets")
		o := testOrder()
		s.order(o, true)
		s.order(o, false)
		bare := o
		bare.TTL = 0
		s.order(bare, true)
		equal(t, "answers", s.answers(), []string{
			"NACK 1: order run/01-kill: too many targets", "NACK 2: order run/01-kill: it is not in force",
			"NACK 3: order run/01-kill: it has no lease",
		})
		equal(t, "events", j.lines, []string{"0s order run/01-kill"})
	})
}

func TestLeaseEndsWhileThereIsNoServerAndIsThenNotClaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, j := &host{t: t}, &journal{}
		f := &fake{streams: make(chan *fakeStream, 10)}
		stop := h.start("one", f)
		run(t, h, Config{Order: j.take})
		s := <-f.streams
		s.t = t
		s.requests()
		j.start = time.Now()
		o := testOrder()
		s.order(o, true)
		synctest.Wait()

		s.close <- errors.New("a short break")
		s = <-f.streams
		s.t = t
		if got := claims(s); got[o.Name] != o.Version() {
			t.Errorf("claimed = %v, want the order that is in force", got)
		}
		stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		equal(t, "events", j.lines, []string{"0s order run/01-kill", "3s expired run/01-kill"})
		h.start("one", f)
		s = <-f.streams
		s.t = t
		if got := claims(s); len(got) > 0 {
			t.Errorf("claimed = %v, want nothing", got)
		}
	})
}

func claims(s *fakeStream) map[string]string {
	for _, req := range s.requests() {
		if req.GetTypeUrl() == xds.TypeFaultOrder {
			return req.GetInitialResourceVersions()
		}
	}
	return nil
}
