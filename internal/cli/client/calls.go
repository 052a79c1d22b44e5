package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const v1 = "/v1alpha1"

func get[T any](ctx context.Context, c *Client, path string) (out T, err error) {
	return out, c.call(ctx, http.MethodGet, v1+path, nil, &out)
}

func post[T any](ctx context.Context, c *Client, path string, in any) (out T, err error) {
	return out, c.call(ctx, http.MethodPost, v1+path, in, &out)
}

// Version of the server.
func (c *Client) Version(ctx context.Context) (userapi.Version, error) {
	return get[userapi.Version](ctx, c, "/version")
}

// Whoami is this account as the server sees it.
func (c *Client) Whoami(ctx context.Context) (userapi.Whoami, error) {
	return get[userapi.Whoami](ctx, c, "/whoami")
}

// Users lists accounts.
func (c *Client) Users(ctx context.Context) ([]userapi.User, error) {
	return get[[]userapi.User](ctx, c, "/users")
}

// AddUser makes an account or a new enrolment code.
func (c *Client) AddUser(ctx context.Context, u userapi.User) (userapi.UserCreated, error) {
	return post[userapi.UserCreated](ctx, c, "/users", u)
}

// RemoveUser removes an account.
func (c *Client) RemoveUser(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, v1+"/users/"+escape(name), nil, nil)
}

// BearerToken makes a bearer token of an account.
func (c *Client) BearerToken(ctx context.Context, name string, r userapi.BearerRequest) (userapi.BearerResponse, error) {
	return post[userapi.BearerResponse](ctx, c, "/users/"+escape(name)+"/tokens", r)
}

// Token makes a one-time join token.
func (c *Client) Token(ctx context.Context, r nodeapi.TokenRequest) (nodeapi.TokenResponse, error) {
	return post[nodeapi.TokenResponse](ctx, c, "/tokens", r)
}

// Status is one screen of everything.
func (c *Client) Status(ctx context.Context) (userapi.Status, error) {
	return get[userapi.Status](ctx, c, "/status")
}

// WatchStatus calls f now and at each change, until ctx ends or f fails.
func (c *Client) WatchStatus(ctx context.Context, f func(userapi.Status) error) error {
	return lines(ctx, c, v1+"/status?watch=true", f)
}

// Audit is the answer of every rule.
func (c *Client) Audit(ctx context.Context) ([]userapi.Rule, error) {
	return get[[]userapi.Rule](ctx, c, "/audit")
}

// List is all resources of a kind, as JSON.
func (c *Client) List(ctx context.Context, kind api.Kind) ([]json.RawMessage, error) {
	return get[[]json.RawMessage](ctx, c, "/resources/"+escape(string(kind)))
}

// Get is one resource, as JSON.
func (c *Client) Get(ctx context.Context, ref api.Ref) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, "/resources/"+escape(string(ref.Kind))+"/"+escape(ref.Name))
}

// Watch calls f with every object of a kind, "synced", then changes.
func (c *Client) Watch(ctx context.Context, kind api.Kind, f func(userapi.WatchEvent) error) error {
	return lines(ctx, c, v1+"/watch?kind="+url.QueryEscape(string(kind)), f)
}

// Delete deletes one resource.
func (c *Client) Delete(ctx context.Context, ref api.Ref) (out userapi.ApplyResponse, err error) {
	return out, c.call(ctx, http.MethodDelete, v1+"/resources/"+escape(string(ref.Kind))+"/"+escape(ref.Name), nil, &out)
}

// Apply changes a set of resources, all or none.
func (c *Client) Apply(ctx context.Context, r userapi.ApplyRequest) (userapi.ApplyResponse, error) {
	return post[userapi.ApplyResponse](ctx, c, "/apply", r)
}

// ApplyObjects is Apply for decoded objects.
func (c *Client) ApplyObjects(ctx context.Context, objects []api.Object, dryRun bool) (userapi.ApplyResponse, error) {
	r := userapi.ApplyRequest{DryRun: dryRun}
	for _, o := range objects {
		b, err := json.Marshal(o)
		if err != nil {
			return userapi.ApplyResponse{}, err
		}
		r.Objects = append(r.Objects, b)
	}
	return c.Apply(ctx, r)
}

// Move orders a "failover" or a "failback".
func (c *Client) Move(ctx context.Context, service api.ServiceID, verb string, r userapi.MoveRequest) (userapi.MoveResponse, error) {
	return post[userapi.MoveResponse](ctx, c, "/services/"+escape(string(service))+"/"+verb, r)
}

// Lever is the safety lever.
func (c *Client) Lever(ctx context.Context) (userapi.Lever, error) {
	return get[userapi.Lever](ctx, c, "/lever")
}

// SetLever engages or releases it.
func (c *Client) SetLever(ctx context.Context, l userapi.Lever) (userapi.Lever, error) {
	return post[userapi.Lever](ctx, c, "/lever", l)
}

// RunDrill opens a run of a drill.
func (c *Client) RunDrill(ctx context.Context, drill string, r userapi.RunRequest) (userapi.Run, error) {
	return post[userapi.Run](ctx, c, "/drills/"+escape(drill)+"/runs", r)
}

// Runs lists runs, newest first.
func (c *Client) Runs(ctx context.Context) ([]userapi.RunSummary, error) {
	return get[[]userapi.RunSummary](ctx, c, "/runs")
}

// Run is one run.
func (c *Client) Run(ctx context.Context, id string) (userapi.Run, error) {
	return get[userapi.Run](ctx, c, "/runs/"+escape(id))
}

// Proposal is the exact bytes that approvers sign.
func (c *Client) Proposal(ctx context.Context, id string) ([]byte, error) {
	return get[[]byte](ctx, c, "/runs/"+escape(id)+"/proposal")
}

// Approve sends a signed envelope.
func (c *Client) Approve(ctx context.Context, id string, envelope []byte) (userapi.Run, error) {
	return post[userapi.Run](ctx, c, "/runs/"+escape(id)+"/approvals", userapi.ApproveRequest{Envelope: envelope})
}

// Abort ends a run.
func (c *Client) Abort(ctx context.Context, id, reason string) (userapi.Run, error) {
	return post[userapi.Run](ctx, c, "/runs/"+escape(id)+"/abort", userapi.AbortRequest{Reason: reason})
}

// WatchRun calls f with every event of a run until its last one (Done), ctx ends or f fails. A stream that breaks
// before that is an error of kind Unavailable.
func (c *Client) WatchRun(ctx context.Context, id string, f func(userapi.RunEvent) error) error {
	finished := false
	err := lines(ctx, c, v1+"/runs/"+escape(id)+"/watch", func(e userapi.RunEvent) error {
		finished = e.Done != nil
		return f(e)
	})
	if errors.Is(err, io.EOF) {
		if finished {
			return nil
		}
		return unreachable(c.context.Server, io.ErrUnexpectedEOF)
	}
	return err
}

// Report is a finished run's report: format json or html.
func (c *Client) Report(ctx context.Context, id, format string) ([]byte, error) {
	return get[[]byte](ctx, c, "/runs/"+escape(id)+"/report?format="+url.QueryEscape(format))
}

// Bundle writes a finished run's evidence to w as a tar archive.
func (c *Client) Bundle(ctx context.Context, id string, w io.Writer) error {
	body, err := c.open(ctx, http.MethodGet, v1+"/runs/"+escape(id)+"/bundle", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return unreachable(c.context.Server, err)
	}
	return nil
}

// ApplyFinding makes the change that a finding names.
func (c *Client) ApplyFinding(ctx context.Context, id string, r userapi.FindingRequest) (userapi.FindingResponse, error) {
	return post[userapi.FindingResponse](ctx, c, "/findings/"+escape(id)+"/apply", r)
}

// CloseFinding closes a finding.
func (c *Client) CloseFinding(ctx context.Context, id string, r userapi.FindingRequest) (userapi.FindingResponse, error) {
	return post[userapi.FindingResponse](ctx, c, "/findings/"+escape(id)+"/close", r)
}

// Checkpoint is the newest signed checkpoint of the log.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	return get[[]byte](ctx, c, "/ledger/checkpoint")
}
