package report

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/drilltest"
)

func TestEveryFieldOfTheReportIsCompared(t *testing.T) {
	b := drilltest.SiteLoss().Build()
	var in Input
	in.Proposal, in.Records, in.Chunks, in.Executions = b.Proposal, b.Records, b.Chunks, b.Executions
	r, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := compare(raw, raw); err != nil {
		t.Fatalf("a report differs from itself: %v", err)
	}
	honest := string(raw)
	sent, served := r.Services[1].Account.Sent, r.Services[0].Reflex.Served
	for _, tc := range []struct{ old, next, field string }{
		{`"rtaSeconds":2.311`, `"rtaSeconds":1.311`, "services[1].rtaSeconds"},
		{`"actual":"2.311s"`, `"actual":"1.311s"`, "services[1].objectives[0].actual"},
		{`"switchSeconds":2.26`, `"switchSeconds":2.25`, "services[0].switchSeconds"},
		{`"status":231`, `"status":230`, "services[1].account.failed.status"},
		{fmt.Sprintf(`"sent":%d`, sent), fmt.Sprintf(`"sent":%d`, sent-1), "services[1].account.sent"},
		{`"executedTwice":0,`, ``, "services[0].account.executedTwice"},
		{fmt.Sprintf(`"served":%d`, served), fmt.Sprintf(`"served":%d`, served+1), "services[0].reflex.served"},
		{`"verdict":"passed"`, `"verdict":"failed"`, "run.verdict"},
		{`"endedBy":"revert"`, `"endedBy":"lease"`, "safety.faults[0].endedBy"},
		{`"actualProcesses":4`, `"actualProcesses":3`, "safety.blastRadius.actualProcesses"},
		{`"predicted":"RTA 1.706s"`, `"predicted":"RTA 0.7s"`, "findings[0].predicted"},
		{`"uncertaintySeconds":0.014`, `"uncertaintySeconds":0.001`, "services[1].uncertaintySeconds"},
		{`{"apiVersion":`, `{"note":"all is well","apiVersion":`, "note"},
		{`{"apiVersion":`, `{ "apiVersion":`, "its form"},
	} {
		if !strings.Contains(honest, tc.old) {
			t.Errorf("the report does not contain %s", tc.old)
			continue
		}
		forged := []byte(strings.Replace(honest, tc.old, tc.next, 1))
		err := compare(forged, raw)
		var d *DiffError
		if !errors.As(err, &d) || d.File != evidence.FileReport || d.Field != tc.field {
			t.Errorf("%s -> %s: got %v, want a difference in %s of %s", tc.old, tc.next, err, tc.field, evidence.FileReport)
		}
	}
}
