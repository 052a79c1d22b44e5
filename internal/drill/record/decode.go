package record

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
)

// Decode reads an entry's payload as T, refusing fields that T does not have: what is not understood must not
// be measured.
func Decode[T any](e evidence.Record) (T, error) {
	var v T
	d := json.NewDecoder(bytes.NewReader(e.Data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, fmt.Errorf("record %d (%s): %w", e.Index, e.Kind, err)
	}
	return v, nil
}

// Check decodes an entry as the payload of its kind. An unknown kind is an error.
func Check(e evidence.Record) error {
	check, ok := payloads()[Kind(e.Kind)]
	if !ok {
		return fmt.Errorf("record %d: unknown kind %q", e.Index, e.Kind)
	}
	return check(e)
}

func payloads() map[Kind]func(evidence.Record) error {
	return map[Kind]func(evidence.Record) error{
		RunProposed: as[Proposed], RunApproved: as[Approved], RunState: as[State], RunPrecheck: as[Precheck],
		RunIntent: as[Intent], RunOutcome: as[Outcome], RunGuardrail: as[Guardrail], RunRestarted: as[Restarted],
		RunClosed: as[Closed], FaultApplied: as[fault.Report], FaultEnded: as[fault.Report], SampleChunk: as[Chunk],
		Executions: as[Executed], SiteVerdict: as[Verdict], FailoverOrder: as[Order], FailoverRefuse: as[Refusal],
		TableCommitted: as[Table], TableAcked: as[Acks], ReflexLeft: as[Reflex], FailbackBegun: as[Failback],
		FailbackStep: as[Failback], FailbackDone: as[Failback], Clocks: as[ClockOffsets], LeverChanged: as[Lever],
		Changed: as[Resource], Account: as[AccountChange], FindingChanged: as[api.FindingSpec],
	}
}

func as[T any](e evidence.Record) error {
	_, err := Decode[T](e)
	return err
}
