package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/livefire-mesh/livefire/internal/drill/measure"
)

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Time     string      `xml:"time,attr"`
	Stamp    string      `xml:"timestamp,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string       `xml:"classname,attr"`
	Name    string       `xml:"name,attr"`
	Time    string       `xml:"time,attr"`
	Failure *junitReason `xml:"failure"`
	Error   *junitReason `xml:"error"`
}

type junitReason struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes the report for a CI system: one case per objective and one for the safety of the run. What is
// inconclusive is an error, never a pass.
func JUnit(w io.Writer, r Report) error {
	s := junitSuite{Name: "livefire drill " + r.Run.ID, Time: fixed(r.Run.Seconds, 3), Stamp: strings.TrimSuffix(r.Run.StartedAt, "Z")}
	for _, svc := range r.Services {
		for _, o := range svc.Verdicts {
			c := junitCase{Class: r.Run.ID + "." + string(svc.Service), Name: o.Name, Time: "0"}
			if o.Name == "rto" && svc.RTA != nil {
				c.Time = fixed(*svc.RTA, 3)
			}
			s.add(c, o.Verdict, objectiveText(o), o.Why)
		}
	}
	verdict := measure.Pass
	switch {
	case !r.Run.Restored:
		verdict = measure.Fail
	case r.Run.Verdict != measure.Passed:
		verdict = measure.Inconclusive
	}
	if r.Run.Verdict == measure.Failed {
		verdict = measure.Fail
	}
	s.add(junitCase{Class: r.Run.ID, Name: "verdict", Time: "0"}, verdict, "run "+r.Run.Verdict, r.Run.Reason)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(s); err != nil {
		return fmt.Errorf("junit of %s: %w", r.Run.ID, err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (s *junitSuite) add(c junitCase, verdict, message, why string) {
	s.Tests++
	switch verdict {
	case measure.Pass:
	case measure.Fail:
		s.Failures++
		c.Failure = &junitReason{Message: message, Text: why}
	default:
		s.Errors++
		c.Error = &junitReason{Message: message, Text: why}
	}
	s.Cases = append(s.Cases, c)
}
