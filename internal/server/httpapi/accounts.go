package httpapi

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const (
	usersPrefix   = "/livefire/accounts/users/"
	bearersPrefix = "/livefire/accounts/bearers/"
	codeTTL       = 24 * time.Hour
	// adminName is the account of the server's own machine: its key is made there at every start.
	adminName    = "admin"
	bearerTTL    = 24 * time.Hour
	maxBearerTTL = 90 * 24 * time.Hour
)

var nameRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// accounts are the people that may call, in the store. Secrets are kept as SHA-256 only.
type accounts struct{ store *store.Store }

// user is what is stored of an account.
type user struct {
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Group     string    `json:"group,omitempty"`
	PublicKey []byte    `json:"publicKey,omitempty"` // Ed25519, of the enrolled key
	KeySHA256 string    `json:"keySha256,omitempty"` // of its SubjectPublicKeyInfo, hex
	Code      *oneTime  `json:"code,omitempty"`
	Created   time.Time `json:"created"`
	revision  int64
}

// oneTime is a secret that can be used once, until it expires.
type oneTime struct {
	ID      string    `json:"id"`
	SHA256  string    `json:"sha256"` // of the secret, hex
	Expires time.Time `json:"expires"`
}

// proven is a caller with what proves it.
type proven struct {
	Caller
	keySHA256 string
}

func (u user) view() userapi.User {
	v := userapi.User{Name: u.Name, Role: u.Role, Group: u.Group, Enrolled: len(u.PublicKey) > 0}
	if v.Enrolled {
		v.Key = evidence.KeyID(u.PublicKey)
	}
	return v
}

func (u user) caller() Caller {
	v := u.view()
	return Caller{Name: u.Name, Role: u.Role, Group: u.Group, Key: v.Key}
}

// newSecret makes an id to find it by and a secret to prove it with.
func newSecret() (id, secret string) {
	var b [8 + 24]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return hex.EncodeToString(b[:8]), base64.RawURLEncoding.EncodeToString(b[8:])
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (o oneTime) matches(secret string, now time.Time) error {
	if subtle.ConstantTimeCompare([]byte(sha256Hex([]byte(secret))), []byte(o.SHA256)) != 1 {
		return errors.New("wrong secret")
	}
	if now.After(o.Expires) {
		return fmt.Errorf("expired at %s", o.Expires.Format(time.RFC3339))
	}
	return nil
}

func (a accounts) get(ctx context.Context, name string) (user, error) {
	var u user
	item, err := a.store.Get(ctx, usersPrefix+name)
	if err != nil {
		return u, err
	}
	if err := json.Unmarshal(item.Value, &u); err != nil {
		return u, fmt.Errorf("decode account %s: %w", name, err)
	}
	u.revision = item.Revision
	return u, nil
}

// op is the write of an account that was read at its revision.
func (u user) op() (store.Op, error) {
	b, err := json.Marshal(u)
	if err != nil {
		return store.Op{}, fmt.Errorf("encode account %s: %w", u.Name, err)
	}
	return store.Op{Key: usersPrefix + u.Name, Value: b, IfRevision: u.revision}, nil
}

func (a accounts) list(ctx context.Context) ([]userapi.User, error) {
	items, _, err := a.store.List(ctx, usersPrefix)
	if err != nil {
		return nil, err
	}
	out := make([]userapi.User, 0, len(items))
	for _, it := range items {
		var u user
		if err := json.Unmarshal(it.Value, &u); err != nil {
			return nil, fmt.Errorf("decode account %s: %w", it.Key, err)
		}
		out = append(out, u.view())
	}
	return out, nil
}

// byName finds the account behind a certificate.
func (a accounts) byName(ctx context.Context, name string) (proven, error) {
	u, err := a.get(ctx, name)
	if api.KindOf(err) == api.NotFound {
		return proven{}, api.Errorf(api.Denied, "user/"+name, "no such account")
	}
	if err != nil {
		return proven{}, err
	}
	return proven{Caller: u.caller(), keySHA256: u.KeySHA256}, nil
}

// bearerRecord is what is stored of a bearer token. It ends with the key that its account had when it was made, and with
// the account: another account of the same name does not inherit it.
type bearerRecord struct {
	User      string    `json:"user"`
	Created   time.Time `json:"created"` // of the account
	KeySHA256 string    `json:"keySha256,omitempty"`
	SHA256    string    `json:"sha256"`
	Expires   time.Time `json:"expires"`
}

// byBearer finds the account behind a bearer token.
func (a accounts) byBearer(ctx context.Context, token string) (Caller, error) {
	denied := api.Errorf(api.Denied, "", "bearer token refused").WithHint("livefire token create --user NAME makes a new one")
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[0] != "lfb1" || !nameRE.MatchString(parts[1]) {
		return Caller{}, denied
	}
	item, err := a.store.Get(ctx, bearersPrefix+parts[1])
	if api.KindOf(err) == api.NotFound {
		return Caller{}, denied
	}
	if err != nil {
		return Caller{}, err
	}
	var b bearerRecord
	if err := json.Unmarshal(item.Value, &b); err != nil {
		return Caller{}, fmt.Errorf("decode bearer token: %w", err)
	}
	if (oneTime{SHA256: b.SHA256, Expires: b.Expires}).matches(parts[2], time.Now()) != nil {
		return Caller{}, denied
	}
	u, err := a.get(ctx, b.User)
	if api.KindOf(err) == api.NotFound {
		return Caller{}, denied
	}
	if err != nil {
		return Caller{}, err
	}
	if !u.Created.Equal(b.Created) || u.KeySHA256 != b.KeySHA256 {
		return Caller{}, denied
	}
	return u.caller(), nil
}

// enrolKey checks a person's certificate request: an Ed25519 key and proof of possession.
func enrolKey(csr []byte) (ed25519.PublicKey, string, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, "", api.Errorf(api.Invalid, "csr", "%v", err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, "", api.Errorf(api.Invalid, "csr", "not signed by its own key: %v", err)
	}
	pub, ok := req.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, "", api.Errorf(api.Invalid, "csr", "a person's key is Ed25519, this is %T", req.PublicKey)
	}
	return pub, sha256Hex(req.RawSubjectPublicKeyInfo), nil
}
