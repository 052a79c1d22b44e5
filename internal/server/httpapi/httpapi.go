package httpapi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const (
	maxBody    = 1 << 20
	maxSamples = 4 << 20
	prefix     = "/v1alpha1"
)

// Entry is one record to append to the ledger.
type Entry struct {
	Kind    record.Kind
	Actor   string
	Subject string
	Data    any
}

// Calls are what the API asks of the rest of the server. Each may be called from any goroutine and returns
// *api.Error for what the caller must know. All are required.
type Calls struct {
	// Commit makes the writes and appends the entries to the ledger in one transaction: all or none. Without entries it
	// only writes. store.ErrConflict: a write is not at its IfRevision. Unavailable: this server does not lead, nothing was
	// written.
	Commit func(ctx context.Context, writes []store.Op, entries ...Entry) error
	// SignNode and SignUser issue a certificate for the public key of a certificate request.
	SignNode func(site api.SiteID, service api.ServiceID, agent bool, csr []byte) (Signed, error)
	SignUser func(name string, csr []byte) (Signed, error)
	// Endpoints are what a node is told at join: the API's URL and the xDS addresses.
	Endpoints func() (apiURL string, xds []string)

	Heartbeat  func(ctx context.Context, n Node, h nodeapi.Heartbeat) (nodeapi.HeartbeatResponse, error)
	Health     func(ctx context.Context, n Node, h nodeapi.Health) error
	Faults     func(ctx context.Context, n Node, f nodeapi.Faults) error
	Samples    func(ctx context.Context, n Node, s nodeapi.Samples, data []byte) error
	Executions func(ctx context.Context, n Node, e nodeapi.Executions, data []byte) error
	Leave      func(ctx context.Context, n Node, l nodeapi.Leave) error

	Status      func(ctx context.Context) (userapi.Status, error)
	WatchStatus func(ctx context.Context, emit func(userapi.Status) error) error
	// StatusOf adds what the server knows to an object that an operator wrote (its status).
	StatusOf func(ctx context.Context, o api.Object)
	// Applied says that resources changed; findings are the audit's answers with the change in force.
	Audit func(ctx context.Context) ([]userapi.Rule, error)

	Move     func(ctx context.Context, c Caller, service api.ServiceID, verb string, r userapi.MoveRequest) (userapi.MoveResponse, error)
	RunDrill func(ctx context.Context, c Caller, drill string, r userapi.RunRequest) (userapi.Run, error)
	Run      func(ctx context.Context, run string) (userapi.Run, error)
	Runs     func(ctx context.Context) ([]userapi.RunSummary, error)
	Approve  func(ctx context.Context, c Caller, key []byte, run string, r userapi.ApproveRequest) (userapi.Run, error)
	Abort    func(ctx context.Context, c Caller, run string, reason string) (userapi.Run, error)
	WatchRun func(ctx context.Context, run string, emit func(userapi.RunEvent) error) error
	// Bundle is the directory of a finished run's evidence on this server.
	Bundle func(ctx context.Context, run string) (dir string, err error)

	ApplyFinding func(ctx context.Context, c Caller, id string, r userapi.FindingRequest) (userapi.FindingResponse, error)
	CloseFinding func(ctx context.Context, c Caller, id string, r userapi.FindingRequest) (userapi.FindingResponse, error)
	Lever        func(ctx context.Context) (userapi.Lever, error)
	SetLever     func(ctx context.Context, c Caller, l userapi.Lever) (userapi.Lever, error)
	Checkpoint   func(ctx context.Context) ([]byte, error)
	Version      func() userapi.Version
}

// Signed is an issued certificate.
type Signed struct {
	Identity    string
	Certificate []byte // PEM chain
	Roots       []byte // PEM
	TrustDomain string
	KeySHA256   string // of the public key, hex
}

// Config of the API. All fields are required but Logger's.
type Config struct {
	Store         *store.Store
	Calls         Calls
	TrustDomain   string
	CAFingerprint string                                    // SHA-256 of the CA, hex: part of every token
	PeerID        func(tls.ConnectionState) (string, error) // the SPIFFE id that the peer proved
	KeySHA256     func(tls.ConnectionState) (string, error) // of the peer's public key, hex
	Logger        *slog.Logger
}

// Server answers the API's calls.
type Server struct {
	cfg      Config
	accounts accounts
	handler  http.Handler
	openAPI  []byte
}

// New checks the configuration and builds the handler.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.TrustDomain == "" || cfg.CAFingerprint == "" || cfg.PeerID == nil || cfg.KeySHA256 == nil || cfg.Calls.Commit == nil {
		return nil, errors.New("httpapi: Store, Calls, TrustDomain, CAFingerprint, PeerID and KeySHA256 are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, accounts: accounts{store: cfg.Store}}
	var err error
	if s.openAPI, err = OpenAPI(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, op := range s.operations() {
		mux.HandleFunc(op.Method+" "+op.Path, s.serve(op))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, api.Errorf(api.NotFound, r.URL.Path, "no such call").WithHint("GET /openapi.json lists every call"))
	})
	// A page in a browser must not be able to use a person's certificate or token from another origin.
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeError(w, api.Errorf(api.Denied, r.URL.Path, "a request of another origin is refused"))
	}))
	s.handler = origins.Handler(mux)
	return s, nil
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// serve authenticates, checks the role, limits the body and calls the operation.
func (s *Server) serve(op operation) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		limit := int64(maxBody)
		if op.Large {
			limit = maxSamples
		}
		r.Body = http.MaxBytesReader(w, timed(w, r), limit)
		caller, err := s.caller(r)
		if err != nil && op.Allow != anyone {
			s.fail(w, r, op.ID, err)
			return
		}
		if err := op.Allow.permit(caller, op); err != nil {
			s.fail(w, r, op.ID, err)
			return
		}
		out, err := op.Handle(w, r, caller)
		switch {
		case errors.Is(err, errAnswered):
		case err != nil:
			s.fail(w, r, op.ID, err)
		default:
			writeJSON(w, http.StatusOK, out)
		}
	}
}

// fail answers with an error. What was not meant for people stays in the log.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, call string, err error) {
	var e *api.Error
	if errors.As(err, &e) {
		if e.Kind == api.Internal {
			s.cfg.Logger.Error("call failed", "call", call, "err", err)
		}
		writeError(w, e)
		return
	}
	id, _ := newSecret()
	if r.Context().Err() == nil {
		s.cfg.Logger.Error("call failed", "call", call, "id", id, "err", err)
	}
	writeError(w, api.Errorf(api.Internal, call, "failed inside the server").WithHint("the server's log says why, under id %s", id))
}

// bodyWithin is how long a caller may take to send its body: a slow one must not hold a connection for ever.
const bodyWithin = 30 * time.Second

// timedBody lifts the deadline once the body is read: a stream that follows may last.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func timed(w http.ResponseWriter, r *http.Request) io.ReadCloser {
	control := http.NewResponseController(w)
	if r.Body == nil || r.Body == http.NoBody || control.SetReadDeadline(time.Now().Add(bodyWithin)) != nil {
		return r.Body
	}
	return &timedBody{r.Body, control}
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.control.SetReadDeadline(time.Time{}) // it could be set a moment ago
	}
	return n, err
}

// commit outlasts a caller that is gone: a write cut off half-way would leave everybody in doubt.
func (s *Server) commit(ctx context.Context, writes []store.Op, entries ...Entry) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitWithin)
	defer cancel()
	return s.cfg.Calls.Commit(ctx, writes, entries...)
}

const commitWithin = 10 * time.Second

// changedMeanwhile makes a conflict of the store readable: its keys mean nothing to people.
func changedMeanwhile(err error, subject string) error {
	if errors.Is(err, store.ErrConflict) {
		return api.Errorf(api.Conflict, subject, "changed meanwhile").WithHint("try again")
	}
	return err
}

// errAnswered says that the operation wrote its own answer.
var errAnswered = errors.New("answered")

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("internal error: encode an answer: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a caller that is gone needs no answer
}

func writeError(w http.ResponseWriter, e *api.Error) {
	b, _ := json.Marshal(e) // strings and numbers only: cannot fail
	w.Header().Set("Content-Type", "application/json")
	if e.Kind == api.Unavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(e.Kind.HTTPStatus())
	_, _ = w.Write(append(b, '\n'))
}

// decode reads a JSON body strictly.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // an empty body is the zero request
		}
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return api.Errorf(api.Invalid, "body", "larger than %d bytes", tooLarge.Limit)
		}
		return api.Errorf(api.Invalid, "body", "%v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return api.Errorf(api.Invalid, "body", "more than one JSON value")
	}
	return nil
}

func readBody(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, api.Errorf(api.Invalid, "body", "larger than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "body", "not read: %v", err)
	}
	return b, nil
}

// stream writes JSON lines and flushes each.
func stream[T any](w http.ResponseWriter, r *http.Request, run func(ctx context.Context, emit func(T) error) error) error {
	control := http.NewResponseController(w)
	started := false
	err := run(r.Context(), func(v T) error {
		if !started {
			started = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.Header().Set("Cache-Control", "no-store")
			w.WriteHeader(http.StatusOK)
		}
		// A reader that does not read is dropped, not buffered.
		if err := control.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
		return control.Flush()
	})
	if !started && err != nil {
		return err
	}
	return errAnswered
}

// bearer is the token of an Authorization header, "" if there is none.
func bearer(r *http.Request) string {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return ""
	}
	return strings.TrimSpace(token)
}
