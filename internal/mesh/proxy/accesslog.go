package proxy

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// Response flags, in Envoy's words. A request may have several.
const (
	flagNoRoute    = "NR"   // no service for the Host
	flagNoHealthy  = "UH"   // no endpoint that may be used
	flagConnect    = "UF"   // connection to the endpoint or the application failed
	flagTerminated = "UC"   // connection ended before the answer
	flagTimeout    = "UT"   // the request's timeout
	flagOverflow   = "UO"   // a limit of connections, pending or requests
	flagShed       = "RL"   // more than the workload's capacity
	flagRetries    = "URX"  // every attempt failed
	flagGone       = "DC"   // the caller has gone
	flagProtocol   = "DPE"  // the caller broke HTTP/1.1
	flagDenied     = "RBAC" // no rule allows the caller
	flagDrain      = "DRAIN"
	flagTLS        = "TLS" // the handshake was refused: nothing was read of a request
	statusGone     = 499
	directionOut   = "out"
	directionIn    = "in"
)

// entry is one line of the access log.
type entry struct {
	Time      time.Time     `json:"time"` // start, UTC
	Direction string        `json:"direction"`
	Service   api.ServiceID `json:"service,omitempty"`
	Site      api.SiteID    `json:"site,omitempty"`
	Endpoint  string        `json:"endpoint,omitempty"`
	Method    string        `json:"method"`
	Path      string        `json:"path"` // without the query, which may hold secrets
	Status    int           `json:"status"`
	Flags     string        `json:"flags,omitempty"`
	Attempts  int           `json:"attempts"`
	Duration  time.Duration `json:"durationNs"`
	Peer      string        `json:"peer,omitempty"` // SPIFFE id
	RequestID string        `json:"requestId,omitempty"`
	Sent      int64         `json:"bytes"` // of the response's body
	Reason    string        `json:"reason,omitempty"`
	Epoch     uint64        `json:"epoch,omitempty"` // of the table that the request started with
}

// accessLog writes one JSON line per request.
type accessLog struct {
	mu sync.Mutex // serializes writes
	w  io.Writer
}

func (l *accessLog) write(e *entry) (err error) {
	if l.w == nil {
		return nil
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	l.mu.Lock() // one write is one line
	defer l.mu.Unlock()
	_, err = l.w.Write(b)
	return err
}
