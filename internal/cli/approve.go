package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// drillApprove is approve and reject: the same signature over the same bytes, with another decision in it.
func drillApprove(s *streams, decision string) *cobra.Command {
	var group string
	var yes bool
	c := &cobra.Command{
		Use: decision + " RUN --as GROUP", Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeNames(api.KindDrillRun),
		Short: map[string]string{evidence.Approve: "Sign a run's proposal with your own key", evidence.Reject: "Reject a run's proposal, signed with your own key"}[decision],
		Example: "  livefire drill " + decision + " site-loss-20261120-1 --as security\n" +
			"  livefire drill " + decision + " site-loss-20261120-1 --as security --yes",
		Long: "Shows the proposal and its SHA-256, asks, and signs exactly these bytes. The key never leaves this machine.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(api.Groups(), group) {
				return usagef(cmd, "--as %q: %s", group, strings.Join(api.Groups(), ", "))
			}
			return s.approve(cmd, args[0], group, decision, yes)
		},
	}
	c.Flags().StringVar(&group, "as", "", "group that you speak for: "+strings.Join(api.Groups(), ", "))
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (s *streams) approve(cmd *cobra.Command, id, group, decision string, yes bool) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	key, err := c.ApprovalKey()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), answerLimit)
	defer cancel()
	me, err := c.Whoami(ctx)
	if err != nil {
		return err
	}
	proposal, err := c.Proposal(ctx, id)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(proposal)
	digest := hex.EncodeToString(sum[:])
	if err := writeProposal(s.err, proposal, digest); err != nil {
		return err
	}
	if !yes {
		if err := s.confirm(cmd, fmt.Sprintf("%s as %s, for %s", decision, me.Name, group), "yes", "--yes"); err != nil {
			return err
		}
	}
	envelope, err := evidence.SignApproval(key, evidence.Approval{Run: id, ProposalSHA256: digest, Group: group, Decision: decision, By: me.Name, At: time.Now().UTC()})
	if err != nil {
		return err
	}
	return s.sendApproval(cmd, c, id, envelope, decision)
}

// sendApproval sends a signed envelope. It has its own time: a person may have thought for long.
func (s *streams) sendApproval(cmd *cobra.Command, c *client.Client, id string, envelope []byte, decision string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), answerLimit)
	defer cancel()
	run, err := c.Approve(ctx, id, envelope)
	if err != nil {
		return s.refused(err)
	}
	return s.writeApproved(run, decision)
}

func (s *streams) writeApproved(run userapi.Run, decision string) error {
	id := run.Run.Metadata.Name
	past := map[string]string{evidence.Approve: "approved", evidence.Reject: "rejected"}[decision]
	state := strings.TrimSpace(run.Run.Status.State + " " + run.Run.Status.Reason)
	if len(run.Missing) > 0 && decision == evidence.Approve {
		state = "still waits for " + strings.Join(run.Missing, ", ")
	}
	if _, err := fmt.Fprintf(s.out, "%s %s %s: %s\n", s.style(s.out).OK(), past, id, state); err != nil {
		return err
	}
	s.note("Next: livefire drill watch %s\n", id)
	return nil
}
