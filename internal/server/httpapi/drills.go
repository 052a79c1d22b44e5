package httpapi

import (
	"context"
	"net/http"
	"os"
	"path/filepath"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

func (s *Server) runDrill(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	var in userapi.RunRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return s.cfg.Calls.RunDrill(r.Context(), c, r.PathValue("drill"), in)
}

func (s *Server) listRuns(_ http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	return s.cfg.Calls.Runs(r.Context())
}

func (s *Server) getRun(_ http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	return s.cfg.Calls.Run(r.Context(), r.PathValue("run"))
}

// proposal answers with the stored bytes themselves: they are what is signed.
func (s *Server) proposal(w http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	run, err := s.cfg.Calls.Run(r.Context(), r.PathValue("run"))
	if err != nil {
		return nil, err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(run.Proposal)
	return nil, errAnswered
}

func (s *Server) approve(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	var in userapi.ApproveRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	u, err := s.user(r.Context(), c.Name)
	if err != nil {
		return nil, err
	}
	if len(u.PublicKey) == 0 {
		return nil, api.Errorf(api.Denied, "user/"+c.Name, "no enrolled key").WithHint("livefire login --code CODE")
	}
	return s.cfg.Calls.Approve(r.Context(), c, u.PublicKey, r.PathValue("run"), in)
}

func (s *Server) abort(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	var in userapi.AbortRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return s.cfg.Calls.Abort(r.Context(), c, r.PathValue("run"), in.Reason)
}

func (s *Server) watchRun(w http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	run := r.PathValue("run")
	return nil, stream(w, r, func(ctx context.Context, emit func(userapi.RunEvent) error) error {
		return s.cfg.Calls.WatchRun(ctx, run, emit)
	})
}

func (s *Server) bundle(w http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	dir, err := s.cfg.Calls.Bundle(r.Context(), r.PathValue("run"))
	if err != nil {
		return nil, err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Content-Disposition", `attachment; filename="`+filepath.Base(dir)+`.tar"`)
	if err := evidence.Archive(dir, w); err != nil {
		// The head is written: only a broken connection can say that the archive is not whole.
		panic(http.ErrAbortHandler)
	}
	return nil, errAnswered
}

func (s *Server) report(w http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	dir, err := s.cfg.Calls.Bundle(r.Context(), r.PathValue("run"))
	if err != nil {
		return nil, err
	}
	name, contentType := "report.json", "application/json"
	switch format := r.URL.Query().Get("format"); format {
	case "", "json":
	case "html":
		name, contentType = "report.html", "text/html; charset=utf-8"
	default:
		return nil, api.Errorf(api.Invalid, "format", "%q; json or html", format)
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "run/"+r.PathValue("run"), "report not read: %v", err)
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")
	_, _ = w.Write(b)
	return nil, errAnswered
}

func (s *Server) finding(verb string) func(http.ResponseWriter, *http.Request, Caller) (any, error) {
	return func(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
		var in userapi.FindingRequest
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		if verb == "apply" {
			return s.cfg.Calls.ApplyFinding(r.Context(), c, r.PathValue("id"), in)
		}
		return s.cfg.Calls.CloseFinding(r.Context(), c, r.PathValue("id"), in)
	}
}

func (s *Server) move(verb string) func(http.ResponseWriter, *http.Request, Caller) (any, error) {
	return func(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
		var in userapi.MoveRequest
		if err := decode(r, &in); err != nil {
			return nil, err
		}
		if len(in.Override) > 0 && c.Role != userapi.Admin {
			return nil, api.Errorf(api.Denied, "service/"+r.PathValue("service"), "an override needs role admin; %s has %s", c.Name, c.Role)
		}
		return s.cfg.Calls.Move(r.Context(), c, api.ServiceID(r.PathValue("service")), verb, in)
	}
}

func (s *Server) lever(_ http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	return s.cfg.Calls.Lever(r.Context())
}

func (s *Server) setLever(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	var in userapi.Lever
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if !in.Engaged && c.Role != userapi.Admin {
		return nil, api.Errorf(api.Denied, "lever", "releasing the lever needs role admin; %s has %s", c.Name, c.Role)
	}
	if in.Reason == "" {
		return nil, api.Errorf(api.Invalid, "lever", "say why").WithHint("--reason TEXT")
	}
	return s.cfg.Calls.SetLever(r.Context(), c, in)
}

func (s *Server) status(w http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	if r.URL.Query().Get("watch") != "true" {
		return s.cfg.Calls.Status(r.Context())
	}
	return nil, stream(w, r, s.cfg.Calls.WatchStatus)
}

func (s *Server) audit(_ http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	return s.cfg.Calls.Audit(r.Context())
}

func (s *Server) checkpoint(w http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	b, err := s.cfg.Calls.Checkpoint(r.Context())
	if err != nil {
		return nil, err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(b)
	return nil, errAnswered
}

func (s *Server) version(http.ResponseWriter, *http.Request, Caller) (any, error) {
	return s.cfg.Calls.Version(), nil
}

func (s *Server) healthz(http.ResponseWriter, *http.Request, Caller) (any, error) {
	return struct{}{}, nil
}
