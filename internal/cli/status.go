package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

func statusCommand(s *streams) *cobra.Command {
	var out format
	var watch bool
	c := &cobra.Command{
		Use: "status [SERVICE...]", Short: "One screen: services, traffic, readiness, last drill",
		Example: `  livefire status
  livefire status -w                          # again at each change, until Ctrl-C
  livefire status orders -o json`,
		ValidArgsFunction: s.completeNames(api.KindService),
		RunE: func(cmd *cobra.Command, args []string) error {
			if watch {
				return s.watchStatus(cmd, out, args)
			}
			var st userapi.Status
			err := s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				st, err = c.Status(ctx)
				return err
			})
			if err != nil {
				return err
			}
			if err := known(st, args); err != nil {
				return err
			}
			return s.printStatus(out, st, args)
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "print again at each change, until Ctrl-C")
	outputFlag(c, &out, "table", "wide", "json", "yaml", "jsonl")
	return c
}

// known refuses a service that the status does not have.
func known(st userapi.Status, services []string) error {
	for _, name := range services {
		if !wantedIn(st, name) {
			return api.Errorf(api.NotFound, "service/"+name, "is not in the routing table").WithHint("livefire get services")
		}
	}
	return nil
}

func wantedIn(st userapi.Status, name string) bool {
	for _, v := range st.Services {
		if string(v.Service) == name {
			return true
		}
	}
	return false
}

// watchStatus shows each status that the server sends. A server that goes away is waited for.
func (s *streams) watchStatus(cmd *cobra.Command, out format, services []string) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	block := s.style(s.out).TTY && (out == "table" || out == "wide")
	away := false
	for {
		err := c.WatchStatus(cmd.Context(), func(st userapi.Status) error {
			away = false
			if block {
				if _, err := io.WriteString(s.out, "\x1b[H\x1b[J"); err != nil {
					return err
				}
			}
			return s.printStatus(out, st, services)
		})
		if cmd.Context().Err() != nil {
			return nil // Ctrl-C is how a watch ends
		}
		if !errors.Is(err, io.EOF) && api.KindOf(err) != api.Unavailable {
			return err
		}
		if !away {
			away = true
			s.note("the server is away: waiting for it (Ctrl-C ends)\n")
		}
		if err := wait(cmd.Context(), time.Second); err != nil {
			return nil
		}
	}
}

// wait waits for d, or less if ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (s *streams) printStatus(out format, st userapi.Status, services []string) error {
	style := s.style(s.out)
	p := page{kind: "Status", one: true, items: []item{{"Status", "", st}}}
	p.text = func(w io.Writer) error { return writeStatus(w, style, st, services, out == "wide") }
	return s.print(out, p)
}

// writeStatus is the screen.
func writeStatus(w io.Writer, style view.Style, st userapi.Status, services []string, wide bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d   %s   %s   %s\n", st.Epoch, nodesLine(st), leverLine(st.Lever), lastRun(st.Runs))
	head := []string{"SERVICE", "PATTERN", "TRAFFIC", "OK%", "READY", "RTA / RTO", "STATE"}
	if wide {
		head = append(head, "REFLEX", "PHASE", "DEMAND")
	}
	var rows [][]string
	for _, v := range st.Services {
		if len(services) > 0 && !slices.Contains(services, string(v.Service)) {
			continue
		}
		r := dashed(string(v.Service), patternName(v.Pattern), shares(v.Shares), okPercent(v.Success), ready(v), dash(v.RTA)+" / "+dash(v.RTO), serviceState(style, st, v))
		if wide {
			r = append(r, dashed(strconv.FormatBool(v.Reflex), v.Phase, demand(v.Demand))...)
		}
		rows = append(rows, r)
	}
	if err := table(&b, head, rows); err != nil {
		return err
	}
	for _, n := range st.Nodes {
		if text := nodeTrouble(st, n); text != "" {
			fmt.Fprintf(&b, "%s node %s at %s: %s\n", style.Warn(), n.Node, n.Site, text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// nodesLine counts the proxies that hold the present epoch.
func nodesLine(st userapi.Status) string {
	step, proxies, agents, alive := inStep(st)
	return fmt.Sprintf("proxies %d/%d in step   agents %d/%d", step, proxies, alive, agents)
}

func inStep(st userapi.Status) (step, proxies, agents, alive int) {
	for _, n := range st.Nodes {
		if n.Agent {
			agents++
			if n.Registered && n.Connected {
				alive++
			}
			continue
		}
		proxies++
		if n.Registered && n.Connected && n.Acked >= st.Epoch {
			step++
		}
	}
	return step, proxies, agents, alive
}

// nodeTrouble is what is wrong with a node, "" if nothing is.
func nodeTrouble(st userapi.Status, n userapi.NodeStatus) string {
	switch {
	case n.Nack != "":
		return "refuses the table: " + n.Nack
	case !n.Registered:
		return "its lease has ended: the process or its host is gone"
	case !n.Connected:
		return "its stream is closed"
	case !n.Agent && n.Acked < st.Epoch:
		return fmt.Sprintf("holds epoch %d, not %d", n.Acked, st.Epoch)
	}
	return ""
}

func leverLine(l userapi.Lever) string {
	if l.Engaged {
		return "lever ENGAGED by " + l.By
	}
	return "lever released"
}

func lastRun(runs []userapi.RunSummary) string {
	if len(runs) == 0 {
		return "no run yet"
	}
	last := newestFirst(runs)[0]
	return "last run " + last.ID + " " + firstOf(last.Verdict, last.State)
}

func firstOf(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return "-"
}

// patternName is "active-passive".
func patternName(kind string) string {
	switch api.Kind(kind) {
	case api.KindActivePassive:
		return "active-passive"
	case api.KindActiveActive:
		return "active-active"
	}
	return kind
}

func okPercent(success *float64) string {
	if success == nil {
		return ""
	}
	return fmt.Sprintf("%.2f", 100**success)
}

func demand(d *float64) string {
	if d == nil {
		return "unknown"
	}
	return fmt.Sprintf("%.0f/s", *d)
}

// ready is how many sites of the service are ready.
func ready(v userapi.ServiceStatus) string {
	n := 0
	for _, site := range v.Sites {
		if site.State == "ready" {
			n++
		}
	}
	return fmt.Sprintf("%d/%d sites", n, len(v.Sites))
}

// serviceState is the worst thing to say about a service: a lost site, a rule that does not hold, no drill.
func serviceState(style view.Style, st userapi.Status, v userapi.ServiceStatus) string {
	for _, site := range v.Sites {
		if site.State == "lost" {
			return style.Bad() + " " + string(site.Site) + " is lost"
		}
	}
	warning := ""
	for _, r := range st.Audit {
		if r.Service != v.Service || r.OK {
			continue
		}
		text := firstOf(r.Name, r.Code)
		if r.Site != "" {
			text += " " + string(r.Site)
		}
		if mark := ruleMark(style, r); mark == style.Bad() {
			return mark + " " + text
		}
		warning = style.Warn() + " " + text
	}
	switch {
	case warning != "":
		return warning
	case v.Phase != "" && v.Phase != "Steady":
		return style.Warn() + " " + strings.TrimSpace(v.Phase+" "+v.Reason)
	case v.LastRun == nil && v.Pattern == "":
		return "- not placed by a pattern"
	case v.LastRun == nil:
		return style.Warn() + " never drilled"
	case v.LastRun.Verdict != "" && v.LastRun.Verdict != "passed":
		return style.Warn() + " last drill " + v.LastRun.Verdict
	}
	return style.OK() + " " + firstOf(v.LastRun.Verdict, v.LastRun.State)
}
