package audit

// Codes of the rules. LF21xx are findings about a configuration or its state, LF31xx are refusals of a decision.
const (
	CodeStandbyReady        = "LF2101" // every standby site is ready
	CodeCapacityKnown       = "LF2102" // the capacity of every site and the demand are known
	CodeCapacityEnough      = "LF2103" // every standby can carry the demand
	CodeDetection           = "LF2104" // a loss would be detected, within the objective
	CodeCertificates        = "LF2105" // certificates are valid for long enough
	CodeReflexStateful      = "LF2106" // no reflex across sites for stateful data
	CodeNoEndpoints         = "LF2121" // the last known endpoints are kept: there are no others
	CodePatternConflict     = "LF2122" // a service has more than one placement pattern
	CodeAddress             = "LF2123" // a workload's address cannot be used
	CodeReference           = "LF2124" // a name that nothing answers to
	CodeTargetNotReady      = "LF3101"
	CodeTargetTooSmall      = "LF3102"
	CodeReplicaFresh        = "LF3103"
	CodeDemandUnknown       = "LF3104"
	CodeResidency           = "LF3105"
	CodeSiteLostUnplanned   = "LF3106"
	CodeMaxSwitches         = "LF3107"
	CodeNotFenced           = "LF3108"
	CodeNothingToDo         = "LF3114" // the order asks for what already is, or for what nobody waits for
	CodeApprovalOutstanding = "LF3110" // a decision waits for a person
)
