//go:build !linux

package probe

import (
	"errors"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

func sinceBoot() time.Duration { return 0 } // not reached: New refuses

func bootID() (string, error) {
	return "", errors.Join(api.Errorf(api.Unavailable, "prober", "needs Linux"))
}
