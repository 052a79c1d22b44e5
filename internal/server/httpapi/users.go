package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

func (s *Server) whoami(_ http.ResponseWriter, _ *http.Request, c Caller) (any, error) {
	return userapi.Whoami{Name: c.Name, Role: c.Role, Group: c.Group, Key: c.Key, Identity: c.Identity}, nil
}

func (s *Server) listUsers(_ http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	return s.accounts.list(r.Context())
}

// addUser makes an account, or a new code for one that exists (same role and group; the old key and its bearer tokens stop
// working at enrolment).
func (s *Server) addUser(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	var in userapi.User
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	subject := "user/" + in.Name
	switch {
	case !nameRE.MatchString(in.Name):
		return nil, api.Errorf(api.Invalid, subject, "a name has lower-case letters, digits and dashes, at most 63")
	case in.Name == adminName:
		return nil, reservedAdmin(subject)
	case !validRole(in.Role):
		return nil, api.Errorf(api.Invalid, subject, "role %q; one of %s", in.Role, strings.Join(roleNames, ", "))
	case !validGroup(in.Group):
		return nil, api.Errorf(api.Invalid, subject, "group %q; one of %s", in.Group, strings.Join(groupNames, ", "))
	case in.Role == userapi.Approver && in.Group == "":
		return nil, api.Errorf(api.Invalid, subject, "an approver speaks for a group").WithHint("--group development|operations|security")
	}
	u, err := s.accounts.get(r.Context(), in.Name)
	if err != nil && api.KindOf(err) != api.NotFound {
		return nil, err
	}
	if err == nil && (u.Role != in.Role || u.Group != in.Group) {
		return nil, api.Errorf(api.Conflict, subject, "exists with role %s, group %q", u.Role, u.Group).WithHint("livefire user remove %s", in.Name)
	}
	id, secret := newSecret()
	u.Name, u.Role, u.Group = in.Name, in.Role, in.Group
	u.Code = &oneTime{ID: id, SHA256: sha256Hex([]byte(secret)), Expires: time.Now().UTC().Add(codeTTL)}
	if u.Created.IsZero() {
		u.Created = time.Now().UTC()
	}
	op, err := u.op()
	if err != nil {
		return nil, err
	}
	if err := s.commit(r.Context(), []store.Op{op}, Entry{Kind: record.Account, Actor: c.Actor(), Subject: subject,
		Data: record.AccountChange{Action: "user.added", Name: u.Name, Role: u.Role, Group: u.Group, By: c.Name}}); err != nil {
		return nil, changedMeanwhile(err, subject)
	}
	apiURL, _ := s.cfg.Calls.Endpoints()
	code := strings.Join([]string{"lfc1", u.Name, secret, s.cfg.CAFingerprint, encodeURL(apiURL)}, ".")
	return userapi.UserCreated{User: u.view(), Code: code, Expires: u.Code.Expires}, nil
}

func (s *Server) removeUser(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	name := r.PathValue("name")
	subject := "user/" + name
	switch name {
	case c.Name:
		return nil, api.Errorf(api.Denied, subject, "an account does not remove itself")
	case adminName:
		return nil, reservedAdmin(subject)
	}
	u, err := s.user(r.Context(), name)
	if err != nil {
		return nil, err
	}
	err = s.commit(r.Context(), []store.Op{{Key: usersPrefix + name, Delete: true, IfRevision: u.revision}}, Entry{Kind: record.Account,
		Actor: c.Actor(), Subject: subject, Data: record.AccountChange{Action: "user.removed", Name: name, By: c.Name}})
	return u.view(), changedMeanwhile(err, subject)
}

func reservedAdmin(subject string) error {
	return api.Errorf(api.Denied, subject, "is the account of the server's own machine, which makes it at every start").
		WithHint("livefire user add NAME --role admin makes another administrator")
}

// user is an account that a call names.
func (s *Server) user(ctx context.Context, name string) (user, error) {
	u, err := s.accounts.get(ctx, name)
	if api.KindOf(err) == api.NotFound {
		return u, api.Errorf(api.NotFound, "user/"+name, "does not exist").WithHint("livefire user list")
	}
	return u, err
}

// enrol exchanges a one-time code for a certificate of the person's own key.
func (s *Server) enrol(_ http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	var in userapi.EnrolRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	denied := api.Errorf(api.Denied, "", "code refused: unknown, used or expired").WithHint("an admin makes a new one: livefire user add NAME ...")
	parts := strings.Split(in.Code, ".")
	if len(parts) != 5 || parts[0] != "lfc1" || !nameRE.MatchString(parts[1]) {
		return nil, denied
	}
	u, err := s.accounts.get(r.Context(), parts[1])
	if err != nil && api.KindOf(err) != api.NotFound {
		return nil, err
	}
	if err != nil || u.Code == nil || u.Code.matches(parts[2], time.Now()) != nil {
		return nil, denied
	}
	pub, keySHA, err := enrolKey(in.CSR)
	if err != nil {
		return nil, err
	}
	signed, err := s.cfg.Calls.SignUser(u.Name, in.CSR)
	if err != nil {
		return nil, err
	}
	u.Code, u.PublicKey, u.KeySHA256 = nil, pub, keySHA
	op, err := u.op()
	if err != nil {
		return nil, err
	}
	err = s.commit(r.Context(), []store.Op{op}, Entry{Kind: record.Account, Actor: "user:" + u.Name, Subject: "user/" + u.Name,
		Data: record.AccountChange{Action: "user.enrolled", Name: u.Name, Role: u.Role, Group: u.Group, Detail: "key " + u.view().Key}})
	if errors.Is(err, store.ErrConflict) { // the code is used once: somebody was faster
		return nil, denied
	}
	if err != nil {
		return nil, err
	}
	apiURL, _ := s.cfg.Calls.Endpoints()
	return userapi.EnrolResponse{User: u.view(), Certificate: signed.Certificate, Roots: signed.Roots, API: apiURL}, nil
}

// newBearer makes a bearer token of an account: for that account itself, or by an admin.
func (s *Server) newBearer(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	name := r.PathValue("name")
	var in userapi.BearerRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if c.Role != userapi.Admin && c.Name != name {
		return nil, api.Errorf(api.Denied, "user/"+name, "only the account itself or an admin makes its tokens")
	}
	if c.Identity == "" {
		return nil, api.Errorf(api.Denied, "user/"+name, "a bearer token does not make further ones").WithHint("use the account's certificate: livefire login --code CODE")
	}
	u, err := s.user(r.Context(), name)
	if err != nil {
		return nil, err
	}
	if in.TTL == 0 {
		in.TTL = bearerTTL
	}
	if in.TTL < 0 || in.TTL > maxBearerTTL {
		return nil, api.Errorf(api.Invalid, "ttl", "%v; at most %v", in.TTL, maxBearerTTL)
	}
	id, secret := newSecret()
	expires := time.Now().UTC().Add(in.TTL)
	b, err := json.Marshal(bearerRecord{User: name, Created: u.Created, KeySHA256: u.KeySHA256, SHA256: sha256Hex([]byte(secret)), Expires: expires})
	if err != nil {
		return nil, err
	}
	lease, err := s.cfg.Store.Grant(r.Context(), in.TTL+keepExpired)
	if err != nil {
		return nil, err
	}
	if err := s.commit(r.Context(), []store.Op{{Key: bearersPrefix + id, Value: b, Lease: lease}}, Entry{Kind: record.Account, Actor: c.Actor(),
		Subject: "user/" + name, Data: record.AccountChange{Action: "bearer.created", Name: name, By: c.Name, Detail: id}}); err != nil {
		return nil, err
	}
	return userapi.BearerResponse{Token: "lfb1." + id + "." + secret, Expires: expires}, nil
}

func encodeURL(u string) string { return base64.RawURLEncoding.EncodeToString([]byte(u)) }

// EnsureAdmin makes the account of the server's own machine, or gives it this key.
func (s *Server) EnsureAdmin(ctx context.Context, publicKey []byte, keySHA256 string) error {
	u, err := s.accounts.get(ctx, adminName)
	if err != nil && api.KindOf(err) != api.NotFound {
		return err
	}
	if u.Role == userapi.Admin && u.KeySHA256 == keySHA256 && u.Code == nil {
		return nil
	}
	u.Name, u.Role, u.PublicKey, u.KeySHA256, u.Code = adminName, userapi.Admin, publicKey, keySHA256, nil
	if u.Created.IsZero() {
		u.Created = time.Now().UTC()
	}
	op, err := u.op()
	if err != nil {
		return err
	}
	return s.commit(ctx, []store.Op{op}, Entry{Kind: record.Account, Actor: "server", Subject: "user/" + adminName,
		Data: record.AccountChange{Action: "user.enrolled", Name: adminName, Role: u.Role, Detail: "key " + u.view().Key, By: "server"}})
}
