package xdsclient

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

var tableOptions = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got, tableOptions); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// withFake runs a test against a server that it scripts itself.
func withFake(t *testing.T, cfg Config, test func(t *testing.T, h *host, s *fakeStream, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &host{t: t}
		f := &fake{streams: make(chan *fakeStream, 10)}
		h.start("one", f)
		c := run(t, h, cfg)
		s := <-f.streams
		s.t = t
		test(t, h, s, c)
	})
}

func TestTableIsAcknowledgedWhenItIsInForce(t *testing.T) {
	var s *fakeStream
	var early []string
	out := &sink{}
	out.before = func() { early = append(early, drain(s)...) }
	withFake(t, Config{Table: out.take}, func(t *testing.T, _ *host, stream *fakeStream, c *Client) {
		s = stream
		r := render(t, testTable(1, "a", "b"))
		for i, url := range xds.TableTypes() {
			equal(t, "tables before "+url, out.epochs(), []route.Epoch{})
			s.send(url, nil, r[url]...)
			if i < 3 {
				equal(t, "answers", s.answers(), []string{})
			}
		}
		equal(t, "answers", s.answers(), []string{"ACK 1", "ACK 2", "ACK 3", "ACK 4"})
		equal(t, "answers before the callback returned", early, nil)
		equal(t, "tables", out.got(), []route.Table{testTable(1, "a", "b")})
		if !c.Connected() {
			t.Error("Connected = false")
		}
	})
}

// drain takes what has arrived without waiting: it is called by the client's own goroutine.
func drain(s *fakeStream) []string {
	var out []string
	for {
		select {
		case req := <-s.reqs:
			if req.GetResponseNonce() != "" {
				out = append(out, req.GetResponseNonce())
			}
		default:
			return out
		}
	}
}

func TestEachEpochIsHandedOverOnce(t *testing.T) {
	out := &sink{}
	withFake(t, Config{Table: out.take}, func(t *testing.T, _ *host, s *fakeStream, _ *Client) {
		has := xds.Resources{}
		for e := route.Epoch(1); e <= 5; e++ {
			table := testTable(e, "a", "b", "c")
			table.Services[0].Limits.Pending = int(e)
			table.Services[1].Sites[0].Endpoints[0].Version = string(rune('a' + e))
			table.Services[2].Timeouts.Request += 1
			r := render(t, table)
			s.table(r, has)
			has = r
		}
		synctest.Wait()
		equal(t, "epochs", out.epochs(), []route.Epoch{1, 2, 3, 4, 5})
	})
}

func TestRefusedTableChangesNothing(t *testing.T) {
	out := &sink{}
	withFake(t, Config{Table: out.take}, func(t *testing.T, _ *host, s *fakeStream, _ *Client) {
		one, two := render(t, testTable(1, "a")), render(t, testTable(2, "a", "b"))
		s.table(one, nil)
		s.answers()
		out.refuse(errors.New("no port left"))
		s.table(two, one)
		equal(t, "answers", s.answers(), []string{"ACK 5", "ACK 6", "NACK 7: put table 2 in force: no port left", "ACK 8"})
		// A server sends the rest of a refused response again, alone: the same answer, and the callback is not asked.
		out.refuse(nil)
		carrier, _ := two.Find(xds.TypeListener, xds.Carrier)
		s.send(xds.TypeListener, nil, carrier)
		equal(t, "answers", s.answers(), []string{"NACK 9: put table 2 in force: no port left"})
		equal(t, "epochs", out.epochs(), []route.Epoch{1})
		three := render(t, testTable(3, "a", "b"))
		s.table(three, two)
		equal(t, "answers", s.answers(), []string{"ACK 10"})
		equal(t, "epochs", out.epochs(), []route.Epoch{1, 3})
	})
}

func TestOlderEpochIsRefused(t *testing.T) {
	out := &sink{}
	withFake(t, Config{Table: out.take}, func(t *testing.T, _ *host, s *fakeStream, _ *Client) {
		five, four, six := render(t, testTable(5, "a")), render(t, testTable(4, "a", "b")), render(t, testTable(6, "a"))
		s.table(five, nil)
		s.answers()
		s.table(four, five)
		equal(t, "answers", s.answers(), []string{"ACK 5", "ACK 6", "NACK 7: epoch 4 is older than 5, which is in force", "ACK 8"})
		s.send(xds.TypeCluster, []string{"b"})
		s.table(six, four)
		synctest.Wait()
		equal(t, "epochs", out.epochs(), []route.Epoch{5, 6})
	})
}

func TestBadResourceKeepsItsLastGoodVersionAndBlocksNothing(t *testing.T) {
	out := &sink{}
	withFake(t, Config{Table: out.take}, func(t *testing.T, _ *host, s *fakeStream, _ *Client) {
		one := render(t, testTable(1, "a", "b"))
		s.table(one, nil)
		s.answers()

		next := testTable(2, "a", "b")
		next.Services[0].Limits.Pending++
		next.Services[1].Sites[0].Endpoints[0].Version = "v2"
		two := render(t, next)
		// A broken cluster, with a carrier whose digest counts it in, as a server without validation would send it.
		bad := spoil(t, two, "a")
		s.table(bad, one)
		got := s.answers()
		if len(got) != 4 || !strings.HasPrefix(got[0], "NACK 5: a: validate Cluster") {
			t.Fatalf("answers = %q, want a NACK of a's cluster and three ACKs", got)
		}
		equal(t, "answers", got[1:], []string{"ACK 6", "ACK 7", "ACK 8"})
		equal(t, "last table", out.got()[len(out.got())-1], next)
		equal(t, "epochs", out.epochs(), []route.Epoch{1, 2})
	})
}

// spoil makes a cluster break Envoy's rules, and the carrier fit to it.
func spoil(t *testing.T, r xds.Resources, name string) xds.Resources {
	t.Helper()
	out := clone(r)
	x, _ := out.Find(xds.TypeCluster, name)
	var c clusterv3.Cluster
	if err := x.Body.UnmarshalTo(&c); err != nil {
		t.Fatal(err)
	}
	c.ConnectTimeout.Seconds = -1
	broken, err := xds.NewResource(name, &c)
	if err != nil {
		t.Fatal(err)
	}
	out.Add(broken)
	if err := xds.Seal(out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestIncompleteTableBeginsTheStreamAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, out := &host{t: t}, &sink{}
		f := &fake{streams: make(chan *fakeStream, 10)}
		h.start("one", f)
		run(t, h, Config{Table: out.take})
		s := <-f.streams
		s.t = t
		r := render(t, testTable(1, "a"))
		s.send(xds.TypeCluster, nil, r[xds.TypeCluster]...)
		synctest.Wait()
		start := time.Now()
		s = <-f.streams
		s.t = t
		if waited := time.Since(start); waited < 5*time.Second || waited > 6*time.Second {
			t.Errorf("new stream after %v, want 5s and a back-off", waited)
		}
		for _, req := range s.requests() {
			if len(req.GetInitialResourceVersions()) > 0 {
				t.Errorf("the new stream claims %v, want nothing: nothing is in force", req.GetInitialResourceVersions())
			}
		}
		s.table(r, nil)
		synctest.Wait()
		equal(t, "epochs", out.epochs(), []route.Epoch{1})
	})
}

func TestReconnectSaysWhatIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, out := &host{t: t}, &sink{}
		f := &fake{streams: make(chan *fakeStream, 10)}
		h.start("one", f)
		run(t, h, Config{Table: out.take})
		s := <-f.streams
		s.t = t
		one, two := render(t, testTable(1, "a")), render(t, testTable(2, "a", "b"))
		s.table(one, nil)
		synctest.Wait()
		s.send(xds.TypeCluster, nil, two[xds.TypeCluster]...) // the rest never comes
		synctest.Wait()
		s.close <- errors.New("going away")
		s = <-f.streams
		s.t = t
		claimed := map[string][]string{}
		for _, req := range s.requests() {
			for name, version := range req.GetInitialResourceVersions() {
				claimed[req.GetTypeUrl()] = append(claimed[req.GetTypeUrl()], name+" "+version)
			}
		}
		want := map[string][]string{}
		for url, rs := range one {
			for _, x := range rs {
				want[url] = append(want[url], x.Name+" "+x.Version)
			}
		}
		for _, m := range []map[string][]string{claimed, want} {
			for _, names := range m {
				slices.Sort(names)
			}
		}
		equal(t, "claimed", claimed, want)
		s.table(two, one)
		synctest.Wait()
		equal(t, "epochs", out.epochs(), []route.Epoch{1, 2})
	})
}

func TestRestartWithoutServerServesTheTableOnDisk(t *testing.T) {
	dir, out := t.TempDir(), &sink{}
	withFake(t, Config{Table: out.take, Dir: dir}, func(t *testing.T, _ *host, s *fakeStream, _ *Client) {
		s.table(render(t, testTable(7, "a", "b")), nil)
		synctest.Wait()
	})
	again := &sink{}
	synctest.Test(t, func(t *testing.T) {
		h := &host{t: t}
		c := run(t, h, Config{Table: again.take, Dir: dir})
		synctest.Wait()
		equal(t, "tables", again.got(), out.got())
		if c.Connected() {
			t.Error("Connected = true, but there is no server")
		}
	})
	equal(t, "tables", again.epochs(), []route.Epoch{7})
}

func TestTableOnDiskIsNotOlderThanWhatTheServerHas(t *testing.T) {
	dir, out := t.TempDir(), &sink{}
	withFake(t, Config{Table: out.take, Dir: dir}, func(t *testing.T, _ *host, s *fakeStream, _ *Client) {
		s.table(render(t, testTable(7, "a")), nil)
		synctest.Wait()
	})
	withFake(t, Config{Table: out.take, Dir: dir}, func(t *testing.T, _ *host, s *fakeStream, _ *Client) {
		s.table(render(t, testTable(6, "a")), render(t, testTable(7, "a")))
		equal(t, "answers", s.answers(), []string{"NACK 1: epoch 6 is older than 7, which is in force"})
	})
	equal(t, "epochs", out.epochs(), []route.Epoch{7, 7})
}

func TestDamagedTableOnDiskIsIgnored(t *testing.T) {
	dir, out := t.TempDir(), &sink{}
	withFake(t, Config{Table: out.take, Dir: dir}, func(t *testing.T, _ *host, s *fakeStream, _ *Client) {
		s.table(render(t, testTable(1, "a")), nil)
		synctest.Wait()
	})
	path := filepath.Join(dir, tableFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	step := max(len(good)/50, 1)
	for i := 0; i < len(good); i += step {
		b := slices.Clone(good)
		b[i] ^= 1
		if _, err := decode(b); err == nil {
			t.Errorf("byte %d was changed and the table was read", i)
		}
		if _, err := decode(good[:i]); err == nil {
			t.Errorf("%d bytes of the table were read", i)
		}
	}
	if err := os.WriteFile(path, good[:len(good)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	out = &sink{}
	withFake(t, Config{Table: out.take, Dir: dir}, func(t *testing.T, _ *host, s *fakeStream, _ *Client) {
		equal(t, "tables from disk", out.epochs(), []route.Epoch{})
		s.table(render(t, testTable(1, "a")), nil)
		synctest.Wait()
	})
	equal(t, "tables", out.epochs(), []route.Epoch{1})
}

func FuzzDecode(f *testing.F) {
	r, _ := xds.Render(testTable(1, "a"), testNode, testCaps)
	b, err := encode(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decode(b); err == nil && xds.Complete(r) != nil {
			t.Error("an incomplete table was read")
		}
	})
}
