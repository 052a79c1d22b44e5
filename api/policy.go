package api

import "strings"

func (o *AuthorizationPolicy) TypeOf() Type    { return Type{Version, KindAuthorizationPolicy} }
func (o *AuthorizationPolicy) Meta() *Metadata { return &o.Metadata }
func (o *AuthorizationPolicy) Default()        { setType(o) }

func (o *AuthorizationPolicy) Validate() []Problem {
	var c checker
	c.object(o)
	c.name("$.spec.service", string(o.Spec.Service))
	for i, rule := range o.Spec.Allow {
		path := index("$.spec.allow", i)
		c.identity(path+".identity", rule.Identity, true)
		for j, m := range rule.Methods {
			if !httpToken.MatchString(m) || m != strings.ToUpper(m) {
				c.add(CodeValue, index(path+".methods", j), "upper case, for example GET", "%q is not a method", m)
			}
		}
		for j, p := range rule.Paths {
			if !strings.HasPrefix(p, "/") || strings.Contains(strings.TrimSuffix(p, "*"), "*") {
				c.add(CodeValue, index(path+".paths", j), `exact, or a prefix that ends in "*": /orders/*`, "%q is not a path", p)
			}
		}
	}
	return c.problems
}
