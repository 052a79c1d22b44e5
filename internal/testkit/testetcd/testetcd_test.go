package testetcd_test

import (
	"errors"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/testkit/testetcd"
)

// A restarted server has its data, and a link leads to its new address.
func TestServerKeepsItsDataThroughACrash(t *testing.T) {
	server := testetcd.Start(t)
	s := testetcd.Open(t, server.Link(t).Endpoint())
	if _, err := s.Txn(t.Context(), store.Fence{}, store.Op{Key: "/k", Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	server.Crash()
	if got := server.Endpoint(); got != "" {
		t.Errorf("Endpoint() of a crashed server = %q, want none", got)
	}
	server.Restart(t)
	var item store.Item
	var err error
	for range 10 { // the client asks again only when its connection is back
		if item, err = s.Get(t.Context(), "/k"); err == nil {
			break
		}
	}
	if err != nil || string(item.Value) != "v" {
		t.Errorf("Get(/k) after the crash = %q, %v, want v", item.Value, err)
	}
}

// HoldReplies is the network of a write whose answer is lost; Hold is that of a write which never arrives.
func TestLinkHoldsBackWhatItIsTold(t *testing.T) {
	for _, tt := range []struct {
		name    string
		hold    func(*testetcd.Link)
		arrives bool
	}{
		{"replies", (*testetcd.Link).HoldReplies, true},
		{"both directions", (*testetcd.Link).Hold, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := testetcd.Start(t)
			link := server.Link(t)
			behind := testetcd.OpenConfig(t, store.Config{Endpoints: []string{link.Endpoint()}, Timeout: 300 * time.Millisecond})
			direct := testetcd.Open(t, server.Endpoint())
			tt.hold(link)
			if _, err := behind.Txn(t.Context(), store.Fence{}, store.Op{Key: "/k"}); !errors.Is(err, store.ErrUncertain) {
				t.Errorf("Txn behind the link = %v, want ErrUncertain", err)
			}
			if _, err := direct.Get(t.Context(), "/k"); (err == nil) != tt.arrives {
				t.Errorf("Get past the link = %v, want arrived: %t", err, tt.arrives)
			}
		})
	}
}
