// Package nodeclient is a node's side of the JSON calls up to the server: join, renew, heartbeat, reports.
//
// A Client sends; Heartbeats keeps the registration lease and estimates the clock offset.
// docs/spec/channels.md lists the calls and what happens when one is lost.
//
// Units: offsets are node clock minus server clock, as time.Duration.
// Errors: a refusal by the server is its *api.Error; a failure to reach it is *api.Error (Unavailable).
// Concurrency: a Client and a Clock are safe from any goroutine; Heartbeats has one caller.
package nodeclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

// maxAnswer bounds what a node reads of one answer.
const maxAnswer = 1 << 20

// Client calls one server's API as one node.
type Client struct {
	base string
	node api.NodeID
	http *http.Client
}

// New makes a client for https://host:port. tlsConfig says which server to trust and which certificate to show.
func New(base string, node api.NodeID, tlsConfig *tls.Config) *Client {
	return &Client{
		base: strings.TrimSuffix(base, "/"),
		node: node,
		http: &http.Client{Transport: &http.Transport{
			TLSClientConfig:     tlsConfig,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     30 * time.Second,
			TLSHandshakeTimeout: 5 * time.Second,
		}},
	}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Join exchanges a one-time token for a certificate.
func (c *Client) Join(ctx context.Context, r nodeapi.JoinRequest) (nodeapi.JoinResponse, error) {
	var out nodeapi.JoinResponse
	return out, c.post(ctx, "/v1alpha1/join", r, &out)
}

// Renew asks for the next certificate.
func (c *Client) Renew(ctx context.Context, r nodeapi.RenewRequest) (nodeapi.RenewResponse, error) {
	var out nodeapi.RenewResponse
	return out, c.post(ctx, c.path("renew"), r, &out)
}

// Health sends a sidecar's view.
func (c *Client) Health(ctx context.Context, h nodeapi.Health) error {
	return c.post(ctx, c.path("health"), h, nil)
}

// Leave says that this node ends now, so that it is gone from every table at once. Its heartbeats must have ended.
func (c *Client) Leave(ctx context.Context) error {
	return c.post(ctx, c.path("leave"), nodeapi.Leave{Sent: time.Now().UTC()}, nil)
}

// Faults sends what became of fault orders.
func (c *Client) Faults(ctx context.Context, f nodeapi.Faults) error {
	return c.post(ctx, c.path("faults"), f, nil)
}

// Token asks for a join token.
func (c *Client) Token(ctx context.Context, r nodeapi.TokenRequest) (nodeapi.TokenResponse, error) {
	var out nodeapi.TokenResponse
	return out, c.post(ctx, "/v1alpha1/tokens", r, &out)
}

// Samples uploads one chunk.
func (c *Client) Samples(ctx context.Context, s nodeapi.Samples, data []byte) error {
	q := url.Values{"order": {s.Order}, "chunk": {strconv.FormatInt(s.Chunk, 10)}, "sha256": {s.SHA256}}
	return c.send(ctx, c.path("samples")+"?"+q.Encode(), "application/x-ndjson", data, nil)
}

// Executions uploads the request ids that one workload executed.
func (c *Client) Executions(ctx context.Context, e nodeapi.Executions, data []byte) error {
	q := url.Values{"order": {e.Order}, "workload": {e.Workload}, "service": {string(e.Service)}, "sha256": {e.SHA256}}
	return c.send(ctx, c.path("executions")+"?"+q.Encode(), "text/plain", data, nil)
}

func (c *Client) path(verb string) string {
	return "/v1alpha1/nodes/" + url.PathEscape(string(c.node)) + "/" + verb
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return c.send(ctx, path, "application/json", body, out)
}

func (c *Client) send(ctx context.Context, path, contentType string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request %s: %w", path, err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.http.Do(req)
	if err != nil {
		return unavailable(c.base, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return unavailable(c.base, err)
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp.StatusCode, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("decode answer of %s: %w", path, err)
	}
	return nil
}

// unavailable keeps the cause, so that a caller can tell a cancelled context from a server that is not there.
func unavailable(base string, cause error) error {
	e := api.Errorf(api.Unavailable, base, "server not reached: %v", cause)
	return errors.Join(e, cause)
}

func refusal(status int, answer []byte) error {
	var e api.Error
	if json.Unmarshal(answer, &e) == nil && e.Kind != "" {
		return &e
	}
	return api.Errorf(api.Internal, "", "server answered %d", status)
}
