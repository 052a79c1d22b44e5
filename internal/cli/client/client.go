// Package client is a person's side of the JSON API: one method per call, and the context file that says who calls.
//
// Units and types are those of userapi and api.
// Errors: a refusal by the server is its *api.Error; a server that is not reached is *api.Error (Unavailable).
// Concurrency: a Client is safe from any goroutine.
package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// Client calls one server as one account.
type Client struct {
	context userapi.Context
	http    *http.Client
}

// Load reads a context file and makes a client of it. Invalid: the file is open to other users, or not a context.
func Load(path string) (*Client, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, api.Errorf(api.Invalid, path, "context not read: %v", err).
			WithHint("set LIVEFIRE_CONTEXT to the context.yaml of a server's data directory, or livefire login --code CODE")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, api.Errorf(api.Invalid, path, "holds a private key and may be read by others (mode %o)", info.Mode().Perm()).WithHint("chmod 600 %s", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, api.Errorf(api.Invalid, path, "context not read: %v", err)
	}
	var c userapi.Context
	if err := yaml.UnmarshalWithOptions(b, &c, yaml.DisallowUnknownField()); err != nil {
		return nil, api.Errorf(api.Invalid, path, "not a context file: %v", err)
	}
	return New(c)
}

// Save writes a context file, readable by its owner only.
func Save(path string, c userapi.Context) error {
	b, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode context: %w", err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	return nil
}

// New makes a client of a context.
func New(c userapi.Context) (*Client, error) {
	if !strings.HasPrefix(c.Server, "https://") {
		return nil, api.Errorf(api.Invalid, "context", "server %q is not an https URL", c.Server)
	}
	cfg, err := identity.RootsTLS(c.TrustDomain, []byte(c.Roots), identity.HasRole(identity.RoleServer))
	if err != nil {
		return nil, err
	}
	if c.Token == "" {
		pair, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key))
		if err != nil {
			return nil, api.Errorf(api.Invalid, "context", "key and certificate: %v", err).WithHint("livefire login --code CODE")
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return &Client{context: c, http: &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, TLSHandshakeTimeout: 5 * time.Second}}}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// User is the account of the context.
func (c *Client) User() string { return c.context.User }

// Server is the URL of the API.
func (c *Client) Server() string { return c.context.Server }

// ApprovalKey is the person's key that signs approvals.
func (c *Client) ApprovalKey() (ed25519.PrivateKey, error) {
	block, _ := pem.Decode([]byte(c.context.Key))
	if block == nil {
		return nil, api.Errorf(api.Invalid, "context", "holds no key").WithHint("livefire login --code CODE makes one on this machine")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "context", "key: %v", err)
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, api.Errorf(api.Invalid, "context", "the key is %T, not Ed25519", k)
	}
	return key, nil
}

// call makes one call; in and out may be nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		return unreachable(c.context.Server, err)
	}
	switch v := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*v = b
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode answer of %s %s: %w", method, path, err)
	}
	return nil
}

// open makes one call and returns the body of its answer.
func (c *Client) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", path, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.context.Server+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request %s: %w", path, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.context.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.context.Token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(c.context.Server, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, unreachable(c.context.Server, err)
	}
	var e api.Error
	if json.Unmarshal(b, &e) == nil && e.Kind != "" {
		return nil, &e
	}
	return nil, api.Errorf(api.Internal, path, "server answered %d", resp.StatusCode)
}

func unreachable(server string, cause error) error {
	e := api.Errorf(api.Unavailable, server, "server not reached: %v", cause).
		WithHint("does it run? livefire server --data-dir DIR; LIVEFIRE_CONTEXT names the context file")
	return errors.Join(e, cause)
}

// lines reads a stream of JSON lines until it ends, ctx ends or f fails.
func lines[T any](ctx context.Context, c *Client, path string, f func(T) error) error {
	body, err := c.open(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	for {
		var v T
		if err := dec.Decode(&v); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if errors.Is(err, io.EOF) {
				return io.EOF
			}
			return unreachable(c.context.Server, err)
		}
		if err := f(v); err != nil {
			return err
		}
	}
}

func escape(s string) string { return url.PathEscape(s) }
