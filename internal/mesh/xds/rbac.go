package xds

import (
	"regexp"
	"strconv"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// denyAll allows nothing: an allow list without an entry.
func denyAll() *httprbacv3.RBAC {
	return &httprbacv3.RBAC{Rules: &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW}}
}

// callersRBAC is who may call: the service's rules, and its health check by any identity of the trust domain.
func callersRBAC(s route.Service, n route.Node) *httprbacv3.RBACPerRoute {
	rules := &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: map[string]*rbacv3.Policy{}}
	for i, rule := range s.Callers {
		rules.Policies["rule-"+strconv.Itoa(i)] = &rbacv3.Policy{
			Principals:  []*rbacv3.Principal{principal(rule.Identity)},
			Permissions: []*rbacv3.Permission{permission(rule)},
		}
	}
	if td := trustDomain(n.Identity); td != "" {
		method, path := "GET", healthPath(s)
		if s.Protocol == "grpc" {
			method, path = "POST", "/grpc.health.v1.Health/Check"
		}
		rules.Policies["health"] = &rbacv3.Policy{
			Principals: []*rbacv3.Principal{authenticated(&matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "spiffe://" + td + "/"},
			})},
			Permissions: []*rbacv3.Permission{permission(api.AllowRule{Methods: []string{method}, Paths: []string{path}})},
		}
	}
	return &httprbacv3.RBACPerRoute{Rbac: &httprbacv3.RBAC{Rules: rules}}
}

// networkRBAC is callersRBAC for a service without requests: methods and paths do not apply. Its health check is a
// handshake, which needs no permission.
func networkRBAC(s route.Service) *netrbacv3.RBAC {
	rules := &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: map[string]*rbacv3.Policy{}}
	for i, rule := range s.Callers {
		rules.Policies["rule-"+strconv.Itoa(i)] = &rbacv3.Policy{
			Principals:  []*rbacv3.Principal{principal(rule.Identity)},
			Permissions: []*rbacv3.Permission{anyRequest()},
		}
	}
	return &netrbacv3.RBAC{StatPrefix: inboundName, Rules: rules}
}

// principal matches a SPIFFE id with a pattern as route.MatchIdentity does: "*" as the last element is any one.
func principal(pattern string) *rbacv3.Principal {
	before, ok := strings.CutSuffix(pattern, "/*")
	if !ok {
		return authenticated(exact(pattern))
	}
	return authenticated(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: regexp.QuoteMeta(before) + "/[^/]+"},
	}})
}

func authenticated(m *matcherv3.StringMatcher) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{
		Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: m},
	}}
}

func anyRequest() *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
}

// permission is one of the methods (if any are named) on one of the paths (likewise).
func permission(rule api.AllowRule) *rbacv3.Permission {
	var all []*rbacv3.Permission
	if len(rule.Methods) > 0 {
		var methods []*rbacv3.Permission
		for _, m := range rule.Methods {
			methods = append(methods, &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
				Name: ":method", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exact(m)},
			}}})
		}
		all = append(all, anyOf(methods))
	}
	if len(rule.Paths) > 0 {
		var paths []*rbacv3.Permission
		for _, p := range rule.Paths {
			paths = append(paths, urlPath(p))
		}
		all = append(all, anyOf(paths))
	}
	switch len(all) {
	case 0:
		return anyRequest()
	case 1:
		return all[0]
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: all}}}
}

func anyOf(rules []*rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: rules}}}
}

// urlPath matches a path exactly, or by prefix if it ends in "*"; the query is not part of it.
func urlPath(p string) *rbacv3.Permission {
	m := exact(p)
	if before, ok := strings.CutSuffix(p, "*"); ok {
		if before == "" {
			return anyRequest()
		}
		m = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: before}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{
		Rule: &matcherv3.PathMatcher_Path{Path: m},
	}}}
}

// trustDomain of a SPIFFE id; empty if it is none.
func trustDomain(identity string) string {
	rest, ok := strings.CutPrefix(identity, "spiffe://")
	if !ok {
		return ""
	}
	td, _, _ := strings.Cut(rest, "/")
	return td
}
