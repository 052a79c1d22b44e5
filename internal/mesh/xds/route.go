package xds

import (
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// outboundName is the shared outbound listener and its route configuration.
const outboundName = "outbound"

// serviceMetadata is what a service is, apart from the sites that clusters and endpoints carry.
type serviceMetadata struct {
	Service  route.Service `json:"service"`         // without Sites
	Sites    []api.SiteID  `json:"sites,omitempty"` // those whose endpoints must be there
	Excluded []route.Site  `json:"excluded,omitempty"`
}

// virtualHost is a service as its callers see it.
func virtualHost(s route.Service, domains []string) *routev3.VirtualHost {
	md := serviceMetadata{Service: s}
	md.Service.Sites = nil
	for _, site := range s.Sites {
		if site.Excluded {
			md.Excluded = append(md.Excluded, site)
			continue
		}
		md.Sites = append(md.Sites, site.Name)
	}
	return &routev3.VirtualHost{
		Name:                          string(s.Name),
		Domains:                       domains,
		Metadata:                      metadata(md),
		Routes:                        routes(s),
		RequestHeadersToRemove:        []string{headerWorkload},
		IncludeAttemptCountInResponse: true,
	}
}

// routes are the routes of a service. Envoy retries every method, so methods that may have an effect get a route of
// their own, which is retried only when the request cannot have been executed.
func routes(s route.Service) []*routev3.Route {
	if s.Protocol == "tcp" {
		return nil
	}
	action := routeAction(s)
	if action == nil {
		return []*routev3.Route{{
			Name:  "nowhere",
			Match: prefix("/"),
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
				Status: 503,
				Body:   &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "no site may be routed to\n"}},
			}},
		}}
	}
	if s.Retries.Idempotent {
		return []*routev3.Route{routeTo("any", prefix("/"), action, retryPolicy(s, true))}
	}
	safe := prefix("/")
	safe.Headers = []*routev3.HeaderMatcher{{
		Name: ":method",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "GET|HEAD|OPTIONS|TRACE"}},
		}},
	}}
	return []*routev3.Route{
		routeTo("safe", safe, action, retryPolicy(s, true)),
		routeTo("rest", prefix("/"), routeAction(s), retryPolicy(s, false)),
	}
}

func prefix(p string) *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: p}}
}

func routeTo(name string, match *routev3.RouteMatch, action *routev3.RouteAction, retry *routev3.RetryPolicy) *routev3.Route {
	action.RetryPolicy = retry
	return &routev3.Route{Name: name, Match: match, Action: &routev3.Route_Route{Route: action}}
}

// routeAction is nil if no site may be routed to.
func routeAction(s route.Service) *routev3.RouteAction {
	a := &routev3.RouteAction{
		Timeout: durationpb.New(s.Timeouts.Request.D()), // always set: Envoy's default is 15 s, 0 means none
	}
	if s.Timeouts.Idle > 0 {
		a.IdleTimeout = durationpb.New(s.Timeouts.Idle.D())
	}
	if s.Protocol == "grpc" && s.Timeouts.Request > 0 {
		// grpc-go ignores Timeout.
		a.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(s.Timeouts.Request.D())}
	}
	shares := shared(s)
	switch {
	case len(shares) == 0:
		return nil
	case s.Reflex:
		a.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: string(s.Name)}
	default:
		w := &routev3.WeightedCluster{}
		for _, site := range shares {
			w.Clusters = append(w.Clusters, &routev3.WeightedCluster_ClusterWeight{
				Name: siteCluster(s.Name, site.Name), Weight: u32(site.Share),
			})
		}
		a.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: w}
	}
	return a
}

// shared are the sites that a service's requests are shared out to.
func shared(s route.Service) []route.Site {
	var out []route.Site
	for _, site := range s.Sites {
		if site.Share > 0 && !site.Excluded {
			out = append(out, site)
		}
	}
	return out
}

// retryPolicy is nil if nothing is retried. A 503 that an inbound sidecar sheds also has x-envoy-ratelimited, which
// Envoy never retries; a policy has no other way to leave out one kind of 503.
func retryPolicy(s route.Service, repeatable bool) *routev3.RetryPolicy {
	on, codes := retryOn(s, repeatable)
	if len(on) == 0 || s.Retries.Attempts < 2 {
		return nil
	}
	p := &routev3.RetryPolicy{
		RetryOn:              strings.Join(on, ","),
		RetriableStatusCodes: codes,
		NumRetries:           u32(s.Retries.Attempts - 1),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: pack(&previoushostsv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: 3,
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: durationpb.New(5 * time.Millisecond), MaxInterval: durationpb.New(20 * time.Millisecond),
		},
	}
	if repeatable && s.Timeouts.Try > 0 {
		// Not for other methods: the end of a try is not the end of its effect.
		p.PerTryTimeout = durationpb.New(s.Timeouts.Try.D())
	}
	if s.Reflex {
		// Without it requests of a hung site fail when all tries go to that site.
		p.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
				TypedConfig: pack(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 1}),
			},
		}
	}
	return p
}

// retryOn translates the conditions of api.Retries. What may have been executed is retried only if repeatable.
func retryOn(s route.Service, repeatable bool) (on []string, codes []uint32) {
	status := map[string]uint32{"502": 502, "503": 503, "504": 504}
	for _, c := range s.Retries.On {
		switch {
		case c == "connect":
			on = append(on, "connect-failure")
		case c == "refused":
			on = append(on, "refused-stream")
		case c == "reset" && repeatable:
			on = append(on, "reset")
		case c == "reset":
			on = append(on, "reset-before-request")
		case status[c] != 0 && repeatable:
			codes = append(codes, status[c])
		}
	}
	if len(codes) > 0 {
		on = append(on, "retriable-status-codes")
		if s.Protocol == "grpc" {
			on = append(on, "unavailable")
		}
	}
	slices.Sort(on)
	slices.Sort(codes)
	return slices.Compact(on), slices.Compact(codes)
}

// portName is the listener of one service, and its route configuration.
func portName(s api.ServiceID) string { return "port/" + string(s) }
