package identity

import (
	"strings"
	"testing"

	"github.com/livefire-mesh/livefire/api"
)

func TestParseIDReadsFourRolesAndNothingElse(t *testing.T) {
	for _, tt := range []struct {
		text string
		want ID
	}{
		{"spiffe://mesh.test/site/eu-west/service/payments", Service("mesh.test", "eu-west", "payments")},
		{"spiffe://mesh.test/site/eu-west/agent", Agent("mesh.test", "eu-west")},
		{"spiffe://mesh.test/server", Server("mesh.test")},
		{"spiffe://mesh.test/user/ada", User("mesh.test", "ada")},
		{"spiffe://mesh.test/user/Ada.L_1-x", User("mesh.test", "Ada.L_1-x")},
		{"", ID{}},
		{"payments", ID{}},
		{"https://mesh.test/server", ID{}},
		{"spiffe://mesh.test", ID{}},
		{"spiffe://mesh.test/", ID{}},
		{"spiffe:///server", ID{}},
		{"spiffe://Mesh.test/server", ID{}},
		{"spiffe://mesh.test:443/server", ID{}},
		{"spiffe://a@mesh.test/server", ID{}},
		{"spiffe://mesh.test/server/", ID{}},
		{"spiffe://mesh.test//server", ID{}},
		{"spiffe://mesh.test/server?x=1", ID{}},
		{"spiffe://mesh.test/server#x", ID{}},
		{"spiffe://mesh.test/servers", ID{}},
		{"spiffe://mesh.test/site/eu-west", ID{}},
		{"spiffe://mesh.test/site/eu-west/agents", ID{}},
		{"spiffe://mesh.test/site/../service/payments", ID{}},
		{"spiffe://mesh.test/site/EU/service/payments", ID{}},
		{"spiffe://mesh.test/site/eu_west/agent", ID{}},
		{"spiffe://mesh.test/site/eu-west/service/-payments", ID{}},
		{"spiffe://mesh.test/site/eu-west/service/pay%2fments", ID{}},
		{"spiffe://mesh.test/site/eu-west/service/payments/x", ID{}},
		{"spiffe://mesh.test/site/eu-west/service/" + strings.Repeat("a", 64), ID{}},
		{"spiffe://mesh.test/user", ID{}},
		{"spiffe://mesh.test/user/ada/x", ID{}},
	} {
		got, err := ParseID(tt.text)
		if got != tt.want {
			t.Errorf("ParseID(%q) = %+v, want %+v", tt.text, got, tt.want)
		}
		if (err == nil) == tt.want.IsZero() || err != nil && api.KindOf(err) != api.Invalid {
			t.Errorf("ParseID(%q) = %v, want Invalid: %t", tt.text, err, tt.want.IsZero())
		}
	}
}

func TestValidateRefusesWhatCannotBeReadBack(t *testing.T) {
	for _, id := range []ID{payments, Agent(domain, "eu-west"), Server(domain), User(domain, "ada")} {
		if err := id.Validate(); err != nil {
			t.Errorf("Validate(%s) = %v", id, err)
		}
	}
	for _, id := range []ID{
		{},
		{TrustDomain: domain},
		{TrustDomain: domain, Role: "king"},
		Service(domain, "eu-west", ""),
		Service(domain, "eu/west", "payments"),
		Service("", "eu-west", "payments"),
		User(domain, "a/b"),
		{TrustDomain: domain, Role: RoleServer, Site: "eu-west"}, // would be read back as another value
	} {
		if err := id.Validate(); err == nil {
			t.Errorf("Validate(%+v) = nil, want an error", id)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{payments.String(), Agent(domain, "a").String(), Server(domain).String(), User(domain, "u").String(), "spiffe://a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			return
		}
		if id.String() != s {
			t.Errorf("ParseID(%q).String() = %q: two texts for one identity", s, id)
		}
		if err := id.Validate(); err != nil {
			t.Errorf("ParseID(%q) is not valid: %v", s, err)
		}
	})
}

func TestParseTrustDomain(t *testing.T) {
	for name, ok := range map[string]bool{"mesh.test": true, "a": true, "": false, "Mesh": false, "a/b": false, "spiffe://a": false, "a:1": false} {
		if _, err := ParseTrustDomain(name); (err == nil) != ok {
			t.Errorf("ParseTrustDomain(%q) = %v, want accepted: %t", name, err, ok)
		}
	}
}
