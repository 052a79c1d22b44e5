package drill

import (
	"slices"
	"strings"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

// Rules of an approval.
const (
	RuleSameKey   = "LF3110" // two groups must not approve with one key
	RuleRunnerKey = "LF3111" // who runs a drill does not approve it
	RuleGroup     = "LF3112" // the group was not asked, or has approved already
	RuleStale     = "LF3113" // other bytes than the proposal's were signed, or the run no longer waits
)

// CheckApproval says whether an approval would be accepted now. It returns *api.Error (Denied).
func (m Machine) CheckApproval(a Approval) error {
	deny := func(rule, hint, format string, args ...any) error {
		return api.Errorf(api.Denied, "DrillRun/"+m.Config.Run, format, args...).WithCode(rule).WithHint("%s", hint)
	}
	switch {
	case m.State.State != Proposed:
		return deny(RuleStale, "approve a run while it is Proposed", "the run is %s, not waiting for approvals", m.State.State)
	case a.SHA256 != m.State.SHA256:
		return deny(RuleStale, "read and sign the proposal again: livefire drill approve "+m.Config.Run,
			"the signature is over another proposal than the one that is stored")
	case !slices.Contains(m.Config.Groups, a.Group):
		return deny(RuleGroup, "groups: "+strings.Join(m.Config.Groups, ", "), "group %q is not asked for this run", a.Group)
	case a.Key == "":
		return deny(RuleSameKey, "log in to make a key: livefire login", "the approval of %s carries no key", a.Group)
	case a.Key == m.Config.ByKey:
		return deny(RuleRunnerKey, "let another person of the group approve",
			"%s runs this drill and cannot approve it for %s", m.Config.By, a.Group)
	}
	for _, b := range m.State.Approvals {
		switch {
		case b.Group == a.Group:
			return deny(RuleGroup, "nothing to do", "group %s has approved already", a.Group)
		case b.Key == a.Key:
			return deny(RuleSameKey, "each group approves with a person and key of its own",
				"key %s has approved for %s already", a.Key, b.Group)
		}
	}
	return nil
}

// Missing are the groups that have not approved yet, in the drill's order.
func (m Machine) Missing() []string {
	var out []string
	for _, g := range m.Config.Groups {
		if !slices.ContainsFunc(m.State.Approvals, func(a Approval) bool { return a.Group == g }) {
			out = append(out, g)
		}
	}
	return out
}

func (s *step) rendered() {
	st, sha := &s.State, s.ev.SHA256
	switch {
	case sha == "":
		return
	case st.State == Draft:
		st.SHA256 = sha
		s.propose()
		s.enter(Proposed, "")
	case sha == st.SHA256:
		if st.State == Scheduled {
			st.Rerendered = true
			s.checked()
		}
		return
	case st.State == Proposed || st.State == Approved || st.State == Scheduled:
		st.SHA256, st.Approvals, st.Rerendered, st.Rules = sha, nil, false, false
		s.propose()
		s.enter(Proposed, "the proposal changed: all approvals are void")
	default:
		return
	}
	s.approvedByAll()
}

// propose records the proposal that is up for approval now.
func (s *step) propose() {
	c := s.Config
	s.record(record.RunProposed, record.Proposed{
		Drill: c.Drill, Scenario: c.Scenario, By: c.By, ByKey: c.ByKey, ProposalSHA256: s.State.SHA256,
		Groups: c.Groups, Expect: string(c.Expect), Software: c.Software,
	}, c.By)
}

func (s *step) approve() {
	if s.ev.Approval == nil {
		return
	}
	a := *s.ev.Approval
	if err := s.CheckApproval(a); err != nil {
		s.act(Action{Kind: ActRefuse, Err: err})
		return
	}
	s.State.Approvals = append(s.State.Approvals, a)
	s.record(record.RunApproved, approved(a, "approve"), a.By)
	s.approvedByAll()
}

func approved(a Approval, decision string) record.Approved {
	return record.Approved{
		Group: a.Group, By: a.By, At: a.At, Key: a.Key, PublicKey: a.PublicKey, ProposalSHA256: a.SHA256,
		EnvelopeSHA256: a.EnvelopeSHA256, Decision: decision,
	}
}

func (s *step) approvedByAll() {
	if s.State.State == Proposed && len(s.Missing()) == 0 {
		s.enter(Approved, "")
	}
}

// reject ends a run that waits for approvals: one group's word is enough.
func (s *step) reject() {
	a := s.ev.Approval
	if a == nil || s.State.State != Proposed || !slices.Contains(s.Config.Groups, a.Group) || a.SHA256 != s.State.SHA256 {
		return
	}
	s.record(record.RunApproved, approved(*a, "reject"), a.By)
	s.abort(reason("rejected by "+a.Group+" ("+a.By+")", s.ev.Reason))
}

func (s *step) start() {
	if s.State.State != Approved {
		err := api.Errorf(api.Denied, "DrillRun/"+s.Config.Run, "the run is %s, not Approved", s.State.State)
		if s.State.State == Proposed {
			err = err.WithHint("missing approvals: %s", strings.Join(s.Missing(), ", "))
		}
		s.act(Action{Kind: ActRefuse, Err: err})
		return
	}
	st := &s.State
	st.StartedAt, st.StartedBy, st.Deadline = s.ev.At, s.ev.By, s.ev.At.Add(s.Config.Deadline)
	s.enter(Scheduled, "started by "+s.ev.By)
	s.prepare()
}

// prepare asks for everything that must be true before a probe is started.
func (s *step) prepare() {
	s.State.Rerendered, s.State.Rules = false, false
	s.act(Action{Kind: ActRerender})
	s.act(Action{Kind: ActPrecheck})
}

func (s *step) prechecked() {
	st := s.State.State
	if st != Scheduled && st != PrecheckOK && st != Baseline {
		return
	}
	s.record(record.RunPrecheck, record.Precheck{Rules: s.ev.Rules}, "")
	for _, r := range s.ev.Rules {
		if !r.OK {
			s.abort(reason("precheck "+r.Code+" "+r.Name, r.Message))
			return
		}
	}
	if len(s.ev.Rules) == 0 {
		s.abort("precheck: no rule was checked")
		return
	}
	s.State.Targets = slices.Sorted(slices.Values(s.ev.Targets))
	if n := len(s.State.Targets); n > s.Config.MaxTargets {
		s.guardrail("blast-radius", tooMany(n, s.Config.MaxTargets))
		return
	}
	s.State.Rules = true
	s.checked()
}

// checked starts the probes once the proposal is the approved one and every rule holds.
func (s *step) checked() {
	if s.State.State != Scheduled || !s.State.Rerendered || !s.State.Rules {
		return
	}
	s.enter(PrecheckOK, "")
	s.startProbes()
}
