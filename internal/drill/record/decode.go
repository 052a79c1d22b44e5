package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
)

// Entry is one record as the log holds it. Index is its number in the log, Seq its number within its run.
type Entry struct {
	Index   int64           `json:"index"`
	Run     string          `json:"run,omitempty"`
	Seq     int64           `json:"runSeq"`
	At      time.Time       `json:"at"` // server clock, when it was appended
	Kind    Kind            `json:"kind"`
	Actor   string          `json:"actor,omitempty"`
	Subject string          `json:"subject,omitempty"`
	Data    json.RawMessage `json:"data"`
}

// Decode reads an entry's payload as T, refusing fields that T does not have: what is not understood must not
// be measured.
func Decode[T any](e Entry) (T, error) {
	var v T
	d := json.NewDecoder(bytes.NewReader(e.Data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, fmt.Errorf("record %d (%s): %w", e.Index, e.Kind, err)
	}
	return v, nil
}

// Check decodes an entry as the payload of its kind. An unknown kind is an error.
func Check(e Entry) error {
	check, ok := payloads()[e.Kind]
	if !ok {
		return fmt.Errorf("record %d: unknown kind %q", e.Index, e.Kind)
	}
	return check(e)
}

func payloads() map[Kind]func(Entry) error {
	return map[Kind]func(Entry) error{
		RunProposed: as[Proposed], RunApproved: as[Approved], RunState: as[State], RunPrecheck: as[Precheck],
		RunIntent: as[Intent], RunOutcome: as[Outcome], RunGuardrail: as[Guardrail], RunRestarted: as[Restarted],
		RunClosed: as[Closed], FaultApplied: as[fault.Report], FaultEnded: as[fault.Report], SampleChunk: as[Chunk],
		Executions: as[Executed], SiteVerdict: as[Verdict], FailoverOrder: as[Order], FailoverRefuse: as[Refusal],
		TableCommitted: as[Table], TableAcked: as[Acks], ReflexLeft: as[Reflex], FailbackBegun: as[Failback],
		FailbackStep: as[Failback], FailbackDone: as[Failback], Clocks: as[ClockOffsets], LeverChanged: as[Lever],
		Changed: as[Resource], Account: as[AccountChange], FindingChanged: as[api.FindingSpec],
	}
}

func as[T any](e Entry) error {
	_, err := Decode[T](e)
	return err
}
