package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// clockLimit is how far a node's clock may be from the server's, its own error included.
const clockLimit = 50.0 // milliseconds

// Answers of one check.
const (
	checkPassed  = "passed"
	checkWarning = "warning"
	checkFailed  = "failed"
	checkUnknown = "unknown" // could not be looked at: never a pass
)

// checked is one answer.
type checked struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Result  string `json:"result"`
	Detail  string `json:"detail,omitempty"`
	Why     string `json:"why,omitempty"`
	Fix     string `json:"fix,omitempty"`
	Code    string `json:"code,omitempty"`
}

func checkCommand(s *streams) *cobra.Command {
	var limit time.Duration
	var out format
	c := &cobra.Command{
		Use: "check", Short: "Check server, clocks, proxies and every readiness rule", Args: cobra.NoArgs,
		Example: `  livefire check
  livefire check --wait 60s                   # until nothing fails, or the time is over
  livefire check -o json`,
		Long: "Exit status: 0 nothing failed; 1 a check failed; 3 the server was not reached.",
		RunE: func(cmd *cobra.Command, _ []string) error { return s.check(cmd, limit, out) },
	}
	c.Flags().DurationVar(&limit, "wait", 0, "check again until nothing fails, at most so long")
	outputFlag(c, &out, "table", "json", "yaml", "jsonl")
	return c
}

func (s *streams) check(cmd *cobra.Command, limit time.Duration, out format) error {
	began := time.Now()
	beat := began
	for {
		list, err := s.checkOnce(cmd)
		left := limit - time.Since(began)
		if err == nil && count(results(list), checkFailed) == 0 || left <= 0 {
			if err != nil {
				return err
			}
			return s.printChecks(out, list, time.Since(began))
		}
		if err != nil && api.KindOf(err) != api.Unavailable {
			return err
		}
		if time.Since(beat) >= 10*time.Second || beat.Equal(began) {
			beat = time.Now()
			what := fmt.Sprintf("%d checks to pass", count(results(list), checkFailed))
			if err != nil {
				what = "the server"
			}
			s.note("waiting for %s, %s left\n", what, left.Round(time.Second))
		}
		if err := wait(cmd.Context(), min(time.Second, left)); err != nil {
			return err
		}
	}
}

func (s *streams) checkOnce(cmd *cobra.Command) (list []checked, err error) {
	err = s.call(cmd, func(ctx context.Context, c *client.Client) error {
		began := time.Now()
		v, err := c.Version(ctx)
		if err != nil {
			return err
		}
		took := time.Since(began)
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		rules, err := c.Audit(ctx)
		if err != nil {
			return err
		}
		detail := fmt.Sprintf("%s, %s, %d ms", c.Server(), v.Version, took.Milliseconds())
		list = checks(st, rules, detail)
		return nil
	})
	return list, err
}

// checks are the answers of one look.
func checks(st userapi.Status, rules []userapi.Rule, server string) []checked {
	out := []checked{{Section: "environment", Name: "server reachable", Result: checkPassed, Detail: server}, clockCheck(st.Nodes)}
	out = append(out, proxyChecks(st)...)
	for _, r := range rules {
		c := checked{Section: "disaster recovery", Name: strings.TrimSpace(ruleSubject(r) + ": " + firstOf(r.Name, r.Code)), Result: checkPassed, Code: r.Code, Detail: r.Message}
		if !r.OK {
			c.Result, c.Why, c.Fix, c.Detail = checkFailed, r.Message, r.Fix, ""
			if r.Severity == "low" || r.Severity == "info" {
				c.Result = checkWarning
			}
		}
		out = append(out, c)
	}
	for _, v := range st.Services {
		if v.Pattern != "" && v.LastRun == nil {
			out = append(out, checked{Section: "disaster recovery", Name: string(v.Service) + ": drilled", Result: checkUnknown, Detail: "no drill yet, recovery time unproven", Fix: "livefire drill list"})
		}
	}
	return out
}

func clockCheck(nodes []userapi.NodeStatus) checked {
	c := checked{Section: "environment", Name: "clocks agree", Result: checkUnknown, Detail: "no node has reported its clock"}
	worst, node := -1.0, api.NodeID("")
	for _, n := range nodes {
		if !n.Registered || n.OffsetMS == 0 && n.ErrorMS == 0 {
			continue // nothing was measured
		}
		if skew := max(n.OffsetMS, -n.OffsetMS) + n.ErrorMS; skew > worst {
			worst, node = skew, n.Node
		}
	}
	if worst < 0 {
		return c
	}
	c.Result, c.Detail = checkPassed, fmt.Sprintf("worst %.1f ms at %s, its error included (limit %.0f ms)", worst, node, clockLimit)
	if worst > clockLimit {
		c.Result, c.Why, c.Fix = checkFailed, "measured times would be wrong by as much", "repair time synchronization (NTP) on the host of "+string(node)
	}
	return c
}

func proxyChecks(st userapi.Status) []checked {
	step, proxies, agents, alive := inStep(st)
	sum := checked{Section: "data plane", Name: fmt.Sprintf("%d of %d proxies hold epoch %d", step, proxies, st.Epoch), Result: checkPassed}
	switch {
	case proxies == 0:
		sum.Result, sum.Name, sum.Fix = checkUnknown, "no proxy has joined", "livefire proxy --help"
	case step < proxies:
		sum.Result, sum.Why = checkFailed, "the others route by an older table, or are gone"
	}
	out := []checked{sum}
	if agents > 0 {
		c := checked{Section: "data plane", Name: fmt.Sprintf("%d of %d agents connected", alive, agents), Result: checkPassed}
		if alive < agents {
			c.Result, c.Why = checkFailed, "no drill can act at, or be measured from, a site without its agent"
		}
		out = append(out, c)
	}
	for _, n := range st.Nodes {
		if text := nodeTrouble(st, n); text != "" {
			out = append(out, checked{Section: "data plane", Name: fmt.Sprintf("%s: node %s", n.Site, n.Node), Result: checkWarning, Why: text, Fix: "look at its log and its process"})
		}
	}
	return out
}

func results(list []checked) []string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = c.Result
	}
	return out
}

func (s *streams) printChecks(out format, list []checked, took time.Duration) error {
	style := s.style(s.out)
	p := page{kind: "Check", text: func(w io.Writer) error { return writeChecks(w, style, list, took) }}
	for _, c := range list {
		p.items = append(p.items, item{p.kind, c.Name, c})
	}
	if err := s.print(out, p); err != nil {
		return err
	}
	if count(results(list), checkFailed) > 0 {
		return status(ExitNo)
	}
	return nil
}

func writeChecks(w io.Writer, style view.Style, list []checked, took time.Duration) error {
	var b strings.Builder
	section := ""
	marks := map[string]string{checkPassed: style.OK(), checkWarning: style.Warn(), checkFailed: style.Bad(), checkUnknown: "?"}
	for _, c := range list {
		if c.Section != section {
			section = c.Section
			fmt.Fprintln(&b, section)
		}
		line := fmt.Sprintf("  %s %-43s %s", marks[c.Result], c.Name, c.Detail)
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
		if c.Why != "" {
			fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("      why:  %s   %s", c.Why, c.Code), " "))
		}
		if c.Fix != "" {
			fmt.Fprintf(&b, "      fix:  %s\n", c.Fix)
		}
	}
	fmt.Fprintf(&b, "%d checks: %d passed, %d warnings, %d failed, %d unknown in %.1f s\n", len(list), count(results(list), checkPassed),
		count(results(list), checkWarning), count(results(list), checkFailed), count(results(list), checkUnknown), took.Seconds())
	_, err := io.WriteString(w, b.String())
	return err
}
