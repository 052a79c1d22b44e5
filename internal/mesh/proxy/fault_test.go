package proxy

import (
	"testing"
	"time"
)

// primaryAndStandby is two sites with two workloads each, and a caller that has seen all of them.
func primaryAndStandby(t *testing.T) (m *mesh, c *caller, eu, us []*workload) {
	m = newMesh(t)
	eu = []*workload{m.workload("payments", "eu", "payments-1"), m.workload("payments", "eu", "payments-2")}
	us = []*workload{m.workload("payments", "us", "payments-3"), m.workload("payments", "us", "payments-4")}
	c = m.caller("payments")
	tbl := table(1, "payments", []siteSpec{{name: "eu", share: route10k, workloads: eu}, {name: "us", priority: 1, workloads: us}})
	m.apply(tbl, c.proxy, eu[0].proxy, eu[1].proxy, us[0].proxy, us[1].proxy)
	c.healthy(t, "payments", 4)
	return m, c, eu, us
}

const route10k = 10_000

// dataplane.md: "site killed (SIGKILL of every instance), safe requests: 0 failed".
func TestKilledSiteFailsNoSafeRequest(t *testing.T) {
	_, c, eu, _ := primaryAndStandby(t)
	l := c.load("payments.mesh", loadRate)
	eventually(t, "a second of traffic", 20*time.Second, func() bool { return l.count() >= loadRate })
	for _, w := range eu {
		w.gate.kill()
	}
	at := l.count()
	eventually(t, "a second more", 20*time.Second, func() bool { return l.count() >= at+loadRate })
	as := l.stop()
	if n, first := failures(as); n > 0 {
		t.Errorf("%d of %d requests failed, want 0; first: %s", n, len(as), first)
	}
	last := as[len(as)-1]
	if got := last.header.Get(headerWorkload); got != "us/payments-3@v1" && got != "us/payments-4@v1" {
		t.Errorf("last answer from %q, want the standby", got)
	}
}

// dataplane.md: "site hangs: built-in: good again within 3 s", and 0 failed for safe requests.
func TestHungSiteIsLeftWithinThreeSeconds(t *testing.T) {
	_, c, eu, _ := primaryAndStandby(t)
	l := c.load("payments.mesh", hangRate)
	eventually(t, "a second of traffic", 20*time.Second, func() bool { return l.count() >= hangRate })
	start := time.Now()
	for _, w := range eu {
		w.gate.pause()
	}
	at := l.count()
	eventually(t, "traffic at the standby", 20*time.Second, func() bool { return l.count() >= at+2*hangRate })
	as := l.stop()
	if n, first := failures(as); n > 0 {
		t.Errorf("%d of %d requests failed, want 0; first: %s", n, len(as), first)
	}
	var slowest time.Duration
	var lastHit time.Time // the last request that met the hung site
	for _, a := range as {
		slowest = max(slowest, a.duration)
		if a.header.Get(headerAttempts) != "1" && a.due.After(lastHit) {
			lastHit = a.due
		}
	}
	span := max(0, lastHit.Sub(start))
	if span > 3*time.Second {
		t.Errorf("the last request that met the hung site was due %v after it hung, want within 3 s", span)
	}
	t.Logf("good again after %v, slowest request %v", span, slowest)
}
