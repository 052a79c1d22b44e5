package view

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// "at most 100 columns wide"; a line that wraps would also break the redrawing of the block below it.
func TestBarsKeepToTheColumns(t *testing.T) {
	var list []userapi.Live
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 40 {
		list = append(list, userapi.Live{Service: "payments", At: at.Add(time.Duration(i) * time.Second),
			OK: map[api.SiteID]int64{"eu-west": 100, "us-east": int64(i)}, RetriedOK: 3, Failed: 2, P99: 1234})
	}
	d := NewDrill(&bytes.Buffer{}, Style{TTY: true}, []byte("{}"))
	for n := 1; n <= len(list); n++ {
		if line := d.bars("payments", list[:n]); utf8.RuneCountInString(line) > columns {
			t.Fatalf("%d columns with %d seconds: %q", utf8.RuneCountInString(line), n, line)
		}
	}
}

func TestPhaseTextIsWrappedBetweenWords(t *testing.T) {
	var out bytes.Buffer
	d := NewDrill(&out, Style{}, []byte("{}"))
	d.phase("√", "revert", time.Time{}, strings.Repeat("word ", 60))
	for _, line := range strings.Split(out.String(), "\n") {
		if n := utf8.RuneCountInString(line); n > columns {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if n := strings.Count(out.String(), "word"); n != 60 {
		t.Errorf("%d words of 60 are left", n)
	}
}

// The block is removed before a line is printed above it, and drawn again below it.
func TestBlockIsRedrawnBelowNewLines(t *testing.T) {
	var out bytes.Buffer
	d := NewDrill(&out, Style{TTY: true}, []byte("{}"))
	v := userapi.Live{Service: "payments", OK: map[api.SiteID]int64{"eu-west": 100}}
	d.Event(userapi.RunEvent{Live: []userapi.Live{v}})
	d.Event(userapi.RunEvent{Live: []userapi.Live{v}})
	if got := strings.Count(out.String(), "\x1b[1A\x1b[J"); got != 1 {
		t.Errorf("the block of one line was cleared %d times, want 1: %q", got, out.String())
	}
}
