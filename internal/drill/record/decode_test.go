package record

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/evidence"
)

func entry(t *testing.T, k Kind, payload any) evidence.Record {
	t.Helper()
	b, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	return evidence.Record{Index: 7, Kind: string(k), Actor: "server", At: time.Unix(0, 0).UTC(), Data: b}
}

func TestDecodeRoundTrip(t *testing.T) {
	want := Verdict{Service: "orders", Site: "eu", State: "lost", At: time.Unix(5, 0).UTC(), Of: 3}
	got, err := Decode[Verdict](entry(t, SiteVerdict, want))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("decoded payload differs:\n%s", d)
	}
}

func TestDecodeNamesTheRecordAndRefusesUnknownFields(t *testing.T) {
	e := entry(t, SiteVerdict, map[string]any{"service": "orders", "colour": "red"})
	_, err := Decode[Verdict](e)
	if err == nil || !strings.Contains(err.Error(), "record 7") || !strings.Contains(err.Error(), "colour") {
		t.Errorf("got %v, want an error that names record 7 and the field", err)
	}
}

func TestCheckKnowsEveryKind(t *testing.T) {
	for k := range payloads() {
		if err := Check(entry(t, k, struct{}{})); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
	if err := Check(entry(t, "run.unheard", struct{}{})); err == nil {
		t.Error("an unknown kind was accepted")
	}
	if err := Check(entry(t, SiteVerdict, []int{1})); err == nil {
		t.Error("a list was accepted as a verdict")
	}
}
