package api

func (o *Site) TypeOf() Type    { return Type{Version, KindSite} }
func (o *Site) Meta() *Metadata { return &o.Metadata }
func (o *Site) Default()        { setType(o) }

func (o *Site) Validate() []Problem {
	var c checker
	c.object(o)
	return c.problems
}

func (o *Workload) TypeOf() Type    { return Type{Version, KindWorkload} }
func (o *Workload) Meta() *Metadata { return &o.Metadata }
func (o *Workload) Default()        { setType(o) }

func (o *Workload) Validate() []Problem {
	var c checker
	c.object(o)
	c.name("$.spec.service", string(o.Spec.Service))
	c.name("$.spec.site", string(o.Spec.Site))
	c.address("$.spec.address", o.Spec.Address)
	if o.Spec.Capacity < 0 || !finite(o.Spec.Capacity) {
		c.add(CodeValue, "$.spec.capacity", "requests/s, 0 if unknown", "%v is not a capacity", o.Spec.Capacity)
	}
	if o.Spec.Identity != "" {
		c.identity("$.spec.identity", o.Spec.Identity, false)
	}
	if o.Spec.Version != "" {
		c.version("$.spec.version", o.Spec.Version)
	}
	return c.problems
}

// version: it travels in the header x-livefire-workload, between "@" and the end.
func (c *checker) version(path, v string) {
	if !httpToken.MatchString(v) || len(v) > 63 {
		c.add(CodeValue, path, "at most 63 letters, digits and -._+, for example v1.2.0", "%q is not a version", v)
	}
}
