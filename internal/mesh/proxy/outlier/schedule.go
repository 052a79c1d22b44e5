package outlier

import "time"

// Schedule says when the active checks of one endpoint are due. The zero value is due at once.
type Schedule struct{ next time.Time }

// Due takes the start of a check and returns whether the loop came late by over half an interval, which means that its
// view is not to be trusted. The next check is one interval after the last one was due; missed ones are left out.
func (s *Schedule) Due(now time.Time, interval time.Duration) (late bool) {
	if s.next.IsZero() {
		s.next = now
	}
	late = now.Sub(s.next) > interval/2
	s.next = s.next.Add(interval)
	if s.next.Before(now) {
		s.next = now.Add(interval)
	}
	return late
}

// Wait is how long to wait for the next check.
func (s *Schedule) Wait(now time.Time) time.Duration { return max(0, s.next.Sub(now)) }

// Overdue says that the next check should have begun over half an interval ago.
func (s *Schedule) Overdue(now time.Time, interval time.Duration) bool {
	return !s.next.IsZero() && now.Sub(s.next) > interval/2
}
